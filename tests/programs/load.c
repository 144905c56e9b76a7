/*
 * Loads VIPL when it runs, as programs did that had to do without it where there was no NIC.
 *
 * usage: load LIBRARY NIC NAME...
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <vipl.h>

typedef VIP_RETURN (*open_nic)(const VIP_CHAR *, VIP_NIC_HANDLE *);
typedef VIP_RETURN (*query_nic)(VIP_NIC_HANDLE, VIP_NIC_ATTRIBUTES *);
typedef VIP_RETURN (*close_nic)(VIP_NIC_HANDLE);

static void *library;

/* C has no conversion from an object's address to a function's. */
static void find(const char *name, void *function)
{
	void *symbol = dlsym(library, name);

	memcpy(function, &symbol, sizeof(symbol));
}

int main(int argc, char **argv)
{
	VIP_NIC_HANDLE nic;
	VIP_NIC_ATTRIBUTES attributes;
	open_nic VipOpenNicLoaded;
	query_nic VipQueryNicLoaded;
	close_nic VipCloseNicLoaded;
	int i;

	if (argc < 3)
		return 2;
	library = dlopen(argv[1], RTLD_NOW);
	if (library == NULL) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	for (i = 3; i < argc; i++) {
		if (dlsym(library, argv[i]) == NULL) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
	}
	find("VipOpenNic", &VipOpenNicLoaded);
	find("VipQueryNic", &VipQueryNicLoaded);
	find("VipCloseNic", &VipCloseNicLoaded);
	if (VipOpenNicLoaded(argv[2], &nic) != VIP_SUCCESS ||
	    VipQueryNicLoaded(nic, &attributes) != VIP_SUCCESS || attributes.NicAddressLen != 6 ||
	    VipCloseNicLoaded(nic) != VIP_SUCCESS) {
		fprintf(stderr, "the NIC cannot be used\n");
		return 1;
	}
	return 0;
}
