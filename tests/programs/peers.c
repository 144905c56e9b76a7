/*
 * Equals that meet: many VIs ask at once for those of another NIC, which does the same, and exchange a message each.
 *
 * usage: peers NIC ADDRESS COUNT      ADDRESS is the other NIC's, six bytes in hexadecimal
 *        peers NIC ADDRESS COUNT hang asks, says so and waits to be killed
 */
#define _POSIX_C_SOURCE 200112L

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vipl.h>

#define MAX_COUNT 1024
#define MAX_NICS 64
#define NIC_LEN 6
#define TIMEOUT_MS 60000

#define CHECK(call) expect(__LINE__, #call, (int)(call), VIP_SUCCESS)

static VIP_NIC_HANDLE nic;
static VIP_VI_HANDLE vis[MAX_COUNT];
static VIP_MEM_HANDLE memory;
/* For each VI a receive and a send. */
static VIP_DESCRIPTOR *descriptors;
static unsigned char own[NIC_LEN], other[NIC_LEN];

static void fail(int line, const char *what, int code)
{
	fprintf(stderr, "peers.c:%d: %s (%d)\n", line, what, code);
	exit(1);
}

static void expect(int line, const char *what, int code, int expected)
{
	if (code != expected)
		fail(line, what, code);
}

static VIP_NET_ADDRESS *address(const unsigned char *host, int number)
{
	static union {
		VIP_NET_ADDRESS address;
		char room[64];
	} places[2];
	static int next;
	VIP_NET_ADDRESS *place = &places[next++ % 2].address;
	char *discriminator = (char *)place->HostAddress + NIC_LEN;

	place->HostAddressLen = NIC_LEN;
	memcpy(place->HostAddress, host, NIC_LEN);
	place->DiscriminatorLen = (VIP_UINT16)sprintf(discriminator, "storm %d", number);
	return place;
}

static VIP_DESCRIPTOR *descriptor(int number, int is_send)
{
	return &descriptors[2 * number + is_send];
}

static void make_vi(int number)
{
	VIP_VI_ATTRIBUTES attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_RECEPTION;
	attributes.MaxTransferSize = 4096;
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &vis[number]));
	CHECK(VipPostRecv(vis[number], descriptor(number, 0), memory));
}

static void ask(int number)
{
	CHECK(VipConnectPeerRequest(vis[number], address(own, number), address(other, number),
				    TIMEOUT_MS));
}

/* The other NIC may not have a driver yet. */
static void meet(int number)
{
	VIP_VI_ATTRIBUTES theirs;
	VIP_RETURN code;

	while ((code = VipConnectPeerWait(vis[number], &theirs)) == VIP_NO_MATCH) {
		sched_yield();
		ask(number);
	}
	if (code != VIP_SUCCESS || theirs.MaxTransferSize != 4096)
		fail(__LINE__, "VipConnectPeerWait", (int)code);
}

/* Whether the NIC is on the fabric. */
static int is_there(const unsigned char *host)
{
	static union {
		VIP_NET_ADDRESS address;
		char room[64];
	} places[MAX_NICS];
	VIP_NET_ADDRESS *pointers[MAX_NICS];
	VIP_AUTODISCOVERY_LIST list;
	VIP_ULONG i;
	int found = 0;

	for (i = 0; i < MAX_NICS; i++)
		pointers[i] = &places[i].address;
	list.NumberOfHops = 1;
	list.ADAddrArray = pointers;
	list.NumAdAddrs = MAX_NICS;
	CHECK(VipQuerySystemManagementInfo(nic, VIP_SMI_AUTODISCOVERY, &list));
	for (i = 0; i < list.NumAdAddrs && i < MAX_NICS; i++)
		found += pointers[i]->HostAddressLen == NIC_LEN &&
			 !memcmp(pointers[i]->HostAddress, host, NIC_LEN);
	return found == 1;
}

static void send(int number)
{
	VIP_DESCRIPTOR *descriptor_of_send = descriptor(number, 1), *done;

	descriptor_of_send->CS.Control = VIP_CONTROL_OP_SENDRECV | VIP_CONTROL_IMMEDIATE;
	descriptor_of_send->CS.ImmediateData = (VIP_UINT32)number;
	CHECK(VipPostSend(vis[number], descriptor_of_send, memory));
	CHECK(VipSendWait(vis[number], TIMEOUT_MS, &done));
}

static void receive(int number)
{
	VIP_DESCRIPTOR *done;

	CHECK(VipRecvWait(vis[number], TIMEOUT_MS, &done));
	if (done != descriptor(number, 0) || done->CS.ImmediateData != (VIP_UINT32)number)
		fail(__LINE__, "a message for another VI", (int)done->CS.ImmediateData);
}

int main(int argc, char **argv)
{
	VIP_NIC_ATTRIBUTES attributes;
	unsigned int bytes[NIC_LEN];
	size_t size;
	int count = argc >= 4 ? atoi(argv[3]) : 0, i;
	void *room;

	if (count < 1 || count > MAX_COUNT ||
	    sscanf(argv[2], "%x:%x:%x:%x:%x:%x", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
		   &bytes[4], &bytes[5]) != NIC_LEN)
		fail(__LINE__, "usage: peers NIC ADDRESS COUNT [hang]", argc);
	CHECK(VipOpenNic(argv[1], &nic));
	CHECK(VipQueryNic(nic, &attributes));
	memcpy(own, attributes.LocalNicAddress, NIC_LEN);
	for (i = 0; i < NIC_LEN; i++)
		other[i] = (unsigned char)bytes[i];
	size = 2 * (size_t)count * sizeof(*descriptors);
	if (posix_memalign(&room, 64, size))
		fail(__LINE__, "out of memory", count);
	descriptors = memset(room, 0, size);
	CHECK(VipRegisterMem(nic, descriptors, size, NULL, &memory));
	for (i = 0; i < count; i++)
		make_vi(i);
	for (i = 0; i < count; i++)
		ask(i);
	if (argc > 4) {
		puts("asked");
		fflush(stdout);
		for (;;)
			pause();
	}
	for (i = 0; i < count; i++)
		meet(i);
	/* The other waits for messages still. */
	if (!is_there(own) || !is_there(other))
		fail(__LINE__, "a NIC is not on the fabric", 0);
	for (i = 0; i < count; i++)
		send(i);
	for (i = 0; i < count; i++)
		receive(i);
	for (i = 0; i < count; i++) {
		CHECK(VipDisconnect(vis[i]));
		CHECK(VipDestroyVi(vis[i]));
	}
	CHECK(VipDeregisterMem(nic, descriptors, memory));
	CHECK(VipCloseNic(nic));
	printf("%d met\n", count);
	return 0;
}
