#define _GNU_SOURCE

#include "loopback.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TIMEOUT 60000
#define ADDRESS_SIZE 64
#define DISCRIMINATOR "loopback"

static VIP_NIC_HANDLE nic;
static VIP_NIC_ATTRIBUTES nic_attributes;
static VIP_VI_HANDLE client, server;
/* A descriptor, and behind it the bytes that are written. */
static unsigned char *source;
static VIP_MEM_HANDLE source_handle;

void expect(const char *file, int line, const char *what, int code)
{
	if (code == 0)
		return;
	fprintf(stderr, "%s:%d: %s (%d)\n", file, line, what, code);
	_exit(1);
}

static VIP_NET_ADDRESS *new_address(void)
{
	VIP_NET_ADDRESS *address = calloc(1, ADDRESS_SIZE);

	MUST(address != NULL);
	address->HostAddressLen = nic_attributes.NicAddressLen;
	address->DiscriminatorLen = (VIP_UINT16)strlen(DISCRIMINATOR);
	memcpy(address->HostAddress, nic_attributes.LocalNicAddress, nic_attributes.NicAddressLen);
	memcpy(address->HostAddress + nic_attributes.NicAddressLen, DISCRIMINATOR,
	       strlen(DISCRIMINATOR));
	return address;
}

static void *serve(void *unused)
{
	VIP_NET_ADDRESS *local = new_address(), *remote = new_address();
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	CHECK(VipConnectWait(nic, local, TIMEOUT, remote, &attributes, &connection));
	CHECK(VipConnectAccept(connection, server));
	return unused;
}

void open_nic(const char *name)
{
	VIP_NET_ADDRESS *address;
	VIP_VI_ATTRIBUTES attributes;
	void *memory = NULL;
	pthread_t thread;
	VIP_RETURN code;

	CHECK(VipOpenNic(name, &nic));
	CHECK(VipQueryNic(nic, &nic_attributes));
	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
	attributes.MaxTransferSize = nic_attributes.MaxTransferSize;
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &client));
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &server));
	address = new_address();
	MUST(pthread_create(&thread, NULL, serve, NULL) == 0);
	do
		code = VipConnectRequest(client, address, address, TIMEOUT, &attributes);
	while (code == VIP_NO_MATCH);
	CHECK(code);
	pthread_join(thread, NULL);
	MUST(posix_memalign(&memory, PAGE, SIZE + PAGE) == 0);
	source = memory;
	CHECK(VipRegisterMem(nic, source, SIZE + PAGE, NULL, &source_handle));
}

void close_nic(void)
{
	CHECK(VipCloseNic(nic));
}

VIP_MEM_HANDLE register_memory(void *memory, unsigned long size)
{
	VIP_MEM_ATTRIBUTES attributes;
	VIP_MEM_HANDLE handle;

	memset(&attributes, 0, sizeof(attributes));
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipRegisterMem(nic, memory, size, &attributes, &handle));
	return handle;
}

void deregister_memory(void *memory, VIP_MEM_HANDLE handle)
{
	CHECK(VipDeregisterMem(nic, memory, handle));
}

void write_by_card(const void *address, VIP_MEM_HANDLE handle, int value, unsigned long size)
{
	VIP_DESCRIPTOR *d = (VIP_DESCRIPTOR *)source, *done;

	memset(source + PAGE, value, size);
	memset(d, 0, sizeof(*d));
	d->Control.Control = VIP_CONTROL_OP_RDMAWRITE;
	d->Control.SegCount = 2;
	d->Control.Length = (VIP_UINT32)size;
	d->DS[0].Remote.Data.AddressBits = (unsigned long)address;
	d->DS[0].Remote.Handle = handle;
	d->DS[1].Local.Data.AddressBits = (unsigned long)source + PAGE;
	d->DS[1].Local.Handle = source_handle;
	d->DS[1].Local.Length = (VIP_UINT32)size;
	CHECK(VipPostSend(client, d, source_handle));
	CHECK(VipSendWait(client, TIMEOUT, &done));
	MUST(!(done->Control.Status & VIP_STATUS_ERROR_MASK));
}

unsigned char *map(unsigned long size, int flags)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	MUST(memory != MAP_FAILED);
	return memory;
}

int is_all(const unsigned char *bytes, unsigned long size, int value)
{
	return bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0;
}
