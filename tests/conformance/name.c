/* The name service. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"

/* The environment variable that names the file of names, in providers that have one. */
#define HOSTS_VARIABLE "VIANIC_HOSTS"
#define NAME_ROOM 256

static void own_name(struct side *side, char *name)
{
	CHECK(side, gethostname(name, NAME_ROOM) == 0);
	name[NAME_ROOM - 1] = 0;
}

static void bad_calls(struct side *side)
{
	union address address = own_address(side, "x"), bad = address;
	char name[NAME_ROOM];
	VIP_ULONG length = sizeof(name);

	IS(side, VipNSInit(NULL, NULL), VIP_INVALID_PARAMETER);
	OK(side, VipNSInit(side->nic, NULL));
	own_name(side, name);
	IS(side, VipNSGetHostByName(NULL, name, &address.net, 0), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByName(side->nic, NULL, &address.net, 0), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByName(side->nic, name, NULL, 0), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByAddr(NULL, &address.net, name, &length), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByAddr(side->nic, NULL, name, &length), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByAddr(side->nic, &address.net, NULL, &length), VIP_INVALID_PARAMETER);
	IS(side, VipNSGetHostByAddr(side->nic, &address.net, name, NULL), VIP_INVALID_PARAMETER);
	bad.net.HostAddressLen = (VIP_UINT16)(side->attributes.NicAddressLen - 1);
	IS(side, VipNSGetHostByAddr(side->nic, &bad.net, name, &length), VIP_INVALID_PARAMETER);
	OK(side, VipNSShutdown(side->nic));
	IS(side, VipNSShutdown(NULL), VIP_INVALID_PARAMETER);
}

static void not_started(struct side *side)
{
	union address address = own_address(side, "x");
	char name[NAME_ROOM];
	VIP_ULONG length = sizeof(name);

	own_name(side, name);
	IS(side, VipNSGetHostByName(side->nic, name, &address.net, 0), VIP_ERROR_NAMESERVICE);
	IS(side, VipNSGetHostByAddr(side->nic, &address.net, name, &length), VIP_ERROR_NAMESERVICE);
	IS(side, VipNSShutdown(side->nic), VIP_ERROR_NAMESERVICE);
}

/* What was in the address before does not matter, and what stands behind the host's bytes stays. */
static void own(struct side *side)
{
	size_t length = side->attributes.NicAddressLen, i;
	union address address;
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	char name[NAME_ROOM];

	own_name(side, name);
	memset(&address, 0xa5, sizeof(address));
	address.net.HostAddressLen = 0;
	for (i = 0; i < 3; i++)
		OK(side, VipNSInit(side->nic, NULL));
	OK(side, VipNSGetHostByName(side->nic, name, &address.net, 0));
	CHECK(side, address.net.HostAddressLen == length);
	CHECK(side, memcmp(address.net.HostAddress, side->attributes.LocalNicAddress, length) == 0);
	CHECK(side, address.net.DiscriminatorLen == 0xa5a5);
	for (i = 4 + length; i < sizeof(address); i++)
		CHECK(side, address.bytes[i] == 0xa5);
	OK(side, VipNSShutdown(side->nic));
	/* Used on. */
	connect_own(side, a, b);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void unknown(struct side *side)
{
	union address address;
	char name[NAME_ROOM], no_name[] = "no.such.host.example", latin[] = "caf\xe9";
	VIP_ULONG length = sizeof(name);
	VIP_RETURN code;

	OK(side, VipNSInit(side->nic, NULL));
	own_name(side, name);
	memset(&address, 0xa5, sizeof(address));
	IS(side, VipNSGetHostByName(side->nic, no_name, &address.net, 0), VIP_ERROR_NAMESERVICE);
	/* Beyond the last address. */
	code = SEEN(side, VipNSGetHostByName(side->nic, name, &address.net, 1000));
	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_NAMESERVICE);
	code = SEEN(side, VipNSGetHostByName(side->nic, latin, &address.net, 0));
	if (code != VIP_ERROR_NAMESERVICE)
		IS(side, code, VIP_INVALID_PARAMETER);
	CHECK(side, address.net.HostAddressLen == 0xa5a5);
	address = own_address(side, "x");
	memset(address.net.HostAddress, 0x42, side->attributes.NicAddressLen);
	IS(side, VipNSGetHostByAddr(side->nic, &address.net, name, &length), VIP_ERROR_NAMESERVICE);
}

static void by_address(struct side *side)
{
	union address address = own_address(side, "x"), found;
	char name[NAME_ROOM], small[NAME_ROOM];
	VIP_ULONG length = sizeof(name), needed = 1;

	OK(side, VipNSInit(side->nic, NULL));
	memset(name, 'x', sizeof(name));
	OK(side, VipNSGetHostByAddr(side->nic, &address.net, name, &length));
	CHECK(side, length > 0 && length < sizeof(name) && strlen(name) == length);
	memset(small, 'x', sizeof(small));
	IS(side, VipNSGetHostByAddr(side->nic, &address.net, small, &needed), VIP_ERROR_RESOURCE);
	CHECK(side, needed == length + 1 && small[0] == 'x');
	OK(side, VipNSGetHostByAddr(side->nic, &address.net, small, &needed));
	CHECK(side, needed == length && strcmp(small, name) == 0);
	/* And back. */
	memset(&found, 0, sizeof(found));
	OK(side, VipNSGetHostByName(side->nic, name, &found.net, 0));
	CHECK(side, memcmp(found.net.HostAddress, address.net.HostAddress, side->attributes.NicAddressLen) == 0);
}

/* Each NIC handle has a name service of its own. */
static void each_handle(struct side *side)
{
	union address address;
	char name[NAME_ROOM];
	VIP_NIC_HANDLE other;

	own_name(side, name);
	OK(side, VipOpenNic(side->nic_name, &other));
	OK(side, VipNSInit(other, NULL));
	IS(side, VipNSGetHostByName(side->nic, name, &address.net, 0), VIP_ERROR_NAMESERVICE);
	OK(side, VipNSGetHostByName(other, name, &address.net, 0));
	OK(side, VipCloseNic(other));
}

static void write_file(struct side *side, const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	CHECK(side, file != NULL);
	CHECK(side, fputs(text, file) >= 0);
	CHECK(side, fclose(file) == 0);
}

static VIP_UINT8 last_byte(struct side *side, const char *host, VIP_ULONG index)
{
	union address address;
	char name[NAME_ROOM];

	snprintf(name, sizeof(name), "%s", host);
	OK(side, VipNSGetHostByName(side->nic, name, &address.net, index));
	return address.net.HostAddress[side->attributes.NicAddressLen - 1];
}

/* The last test of names: if it fails, what it has set stays. */
static void file(struct side *side)
{
	const char *before = getenv(HOSTS_VARIABLE);
	char *path = new_memory(side, NAME_ROOM, 1), *kept = new_memory(side, NAME_ROOM, 1);
	union address address = own_address(side, "x");
	char name[NAME_ROOM], alpha[] = "alpha", beta[] = "beta";
	VIP_ULONG length = sizeof(name);

	if (before != NULL)
		snprintf(kept, NAME_ROOM, "%s", before);
	/* At first there is no such file. */
	snprintf(path, NAME_ROOM, "/tmp/vipl-conformance-%ld", (long)getpid());
	setenv(HOSTS_VARIABLE, path, 1);
	if (VipNSInit(side->nic, NULL) == VIP_SUCCESS)
		skip(side, "this provider has no such file of names");
	IS(side, VipNSInit(side->nic, NULL), VIP_ERROR_NAMESERVICE);
	write_file(side, path, "# NICs\n02:00:00:00:00:0a  alpha alpha.example\n\n02:00:00:00:00:0b beta\n"
			       "02:00:00:00:00:0c\tbeta beta-2 # the second\n");
	OK(side, VipNSInit(side->nic, NULL));
	CHECK(side, last_byte(side, "alpha", 0) == 0x0a && last_byte(side, "ALPHA.example", 0) == 0x0a);
	CHECK(side, last_byte(side, "beta", 0) == 0x0b && last_byte(side, "beta", 1) == 0x0c);
	CHECK(side, last_byte(side, "beta-2", 0) == 0x0c && last_byte(side, "02:00:00:00:00:77", 0) == 0x77);
	IS(side, VipNSGetHostByName(side->nic, beta, &address.net, 2), VIP_ERROR_NAMESERVICE);
	memcpy(address.net.HostAddress, "\x02\x00\x00\x00\x00\x0a", 6);
	OK(side, VipNSGetHostByAddr(side->nic, &address.net, name, &length));
	CHECK(side, strcmp(name, alpha) == 0);
	/* What is wrong is refused, and the names are as they were. */
	write_file(side, path, "02:00:00:00:00:0d gamma\nnonsense delta\n");
	IS(side, VipNSInit(side->nic, NULL), VIP_ERROR_NAMESERVICE);
	CHECK(side, last_byte(side, "alpha", 0) == 0x0a);
	unlink(path);
	if (before != NULL)
		setenv(HOSTS_VARIABLE, kept, 1);
	else
		unsetenv(HOSTS_VARIABLE);
}

static const struct test tests[] = {
	{ "bad_parameters", "M:m",
	  "VipNSInit:VIP_INVALID_PARAMETER VipNSGetHostByName:VIP_INVALID_PARAMETER "
	  "VipNSGetHostByAddr:VIP_INVALID_PARAMETER VipNSShutdown:VIP_INVALID_PARAMETER",
	  ONCE, bad_calls, NULL },
	{ "nothing_is_found_before_the_start", "M:m",
	  "VipNSGetHostByName:VIP_ERROR_NAMESERVICE VipNSGetHostByAddr:VIP_ERROR_NAMESERVICE "
	  "VipNSShutdown:VIP_ERROR_NAMESERVICE",
	  ONCE, not_started, NULL },
	{ "a_host_knows_its_name", "C:armci C:mplite C:mpich-nt",
	  "VipNSInit:VIP_SUCCESS VipNSGetHostByName:VIP_SUCCESS VipNSShutdown:VIP_SUCCESS", ONCE, own, NULL },
	{ "unknown_names_are_told", "M:l D",
	  "VipNSGetHostByName:VIP_ERROR_NAMESERVICE VipNSGetHostByAddr:VIP_ERROR_NAMESERVICE", ONCE, unknown, NULL },
	{ "an_address_has_a_name", "HI M:m D", "VipNSGetHostByAddr:VIP_SUCCESS VipNSGetHostByAddr:VIP_ERROR_RESOURCE",
	  ONCE, by_address, NULL },
	{ "each_handle_has_its_own", "C:armci", "VipNSGetHostByName:VIP_SUCCESS VipNSGetHostByName:VIP_ERROR_NAMESERVICE",
	  ONCE, each_handle, NULL },
	{ "a_file_has_names", "D",
	  "VipNSInit:VIP_SUCCESS VipNSInit:VIP_ERROR_NAMESERVICE VipNSGetHostByName:VIP_SUCCESS "
	  "VipNSGetHostByAddr:VIP_SUCCESS",
	  ONCE, file, NULL },
};

const struct group name_group = GROUP("name", NULL, tests);
