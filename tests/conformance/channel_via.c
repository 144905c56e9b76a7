/* A channel between two processes: a VI of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel.h"

#define DISCRIMINATOR "vipl-conformance"
#define RECEIVES 8
#define SILENCE_MS 120000UL
#define CONNECT_MS 60000UL
#define ADDRESS_BYTES 64

struct slot {
	VIP_DESCRIPTOR descriptor;
	struct packet packet;
	char padding[64 - sizeof(struct packet) % 64];
};

struct via_channel {
	struct channel channel;
	VIP_NIC_HANDLE nic;
	VIP_NIC_ATTRIBUTES attributes;
	VIP_VI_HANDLE vi;
	VIP_MEM_HANDLE memory;
	/* The last is the one to send from. */
	struct slot *slots;
	unsigned int next;
};

static void check(VIP_RETURN code, const char *what)
{
	if (code == VIP_SUCCESS)
		return;
	fprintf(stderr, "the channel between the two processes: %s: %d\n", what, (int)code);
	exit(2);
}

static void prepare(struct via_channel *via, struct slot *slot)
{
	memset(&slot->descriptor, 0, sizeof(slot->descriptor));
	slot->descriptor.CS.SegCount = 1;
	slot->descriptor.CS.Length = sizeof(slot->packet);
	slot->descriptor.DS[0].Local.Data.Address = &slot->packet;
	slot->descriptor.DS[0].Local.Handle = via->memory;
	slot->descriptor.DS[0].Local.Length = sizeof(slot->packet);
}

static int send_packet(struct channel *channel, const struct packet *packet)
{
	struct via_channel *via = (struct via_channel *)channel;
	struct slot *slot = &via->slots[RECEIVES];
	VIP_DESCRIPTOR *done;

	prepare(via, slot);
	slot->packet = *packet;
	if (VipPostSend(via->vi, &slot->descriptor, via->memory) != VIP_SUCCESS)
		return -1;
	return VipSendWait(via->vi, SILENCE_MS, &done) == VIP_SUCCESS ? 0 : -1;
}

static int receive_packet(struct channel *channel, struct packet *packet)
{
	struct via_channel *via = (struct via_channel *)channel;
	struct slot *slot = &via->slots[via->next++ % RECEIVES];
	VIP_DESCRIPTOR *done;

	if (VipRecvWait(via->vi, SILENCE_MS, &done) != VIP_SUCCESS || done != &slot->descriptor)
		return -1;
	*packet = slot->packet;
	prepare(via, slot);
	return VipPostRecv(via->vi, &slot->descriptor, via->memory) == VIP_SUCCESS ? 0 : -1;
}

static struct via_channel *new_channel(const char *nic_name)
{
	struct via_channel *via = calloc(1, sizeof(*via));
	VIP_VI_ATTRIBUTES attributes;
	unsigned long size = (RECEIVES + 1) * sizeof(struct slot);
	char *memory = malloc(size + VIP_DESCRIPTOR_ALIGNMENT);
	int i;

	if (via == NULL || memory == NULL)
		check(VIP_ERROR_RESOURCE, "memory");
	while ((unsigned long)memory % VIP_DESCRIPTOR_ALIGNMENT != 0)
		memory++;
	via->slots = (struct slot *)memory;
	via->channel.send = send_packet;
	via->channel.receive = receive_packet;
	check(VipOpenNic(nic_name, &via->nic), "VipOpenNic");
	check(VipQueryNic(via->nic, &via->attributes), "VipQueryNic");
	check(VipRegisterMem(via->nic, memory, size, NULL, &via->memory), "VipRegisterMem");
	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
	attributes.MaxTransferSize = sizeof(struct packet);
	check(VipCreateVi(via->nic, &attributes, NULL, NULL, &via->vi), "VipCreateVi");
	for (i = 0; i < RECEIVES; i++) {
		prepare(via, &via->slots[i]);
		check(VipPostRecv(via->vi, &via->slots[i].descriptor, via->memory), "VipPostRecv");
	}
	return via;
}

static VIP_NET_ADDRESS *address(const struct via_channel *via, const unsigned char *host, void *room)
{
	VIP_NET_ADDRESS *address = room;
	size_t length = via->attributes.NicAddressLen;

	memset(room, 0, ADDRESS_BYTES);
	address->HostAddressLen = (VIP_UINT16)length;
	memcpy(address->HostAddress, host, length);
	address->DiscriminatorLen = sizeof(DISCRIMINATOR) - 1;
	memcpy(address->HostAddress + length, DISCRIMINATOR, sizeof(DISCRIMINATOR) - 1);
	return address;
}

struct channel *serve_channel(const char *nic_name)
{
	struct via_channel *via = new_channel(nic_name);
	unsigned long local[ADDRESS_BYTES / sizeof(long)], remote[ADDRESS_BYTES / sizeof(long)];
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	fprintf(stderr, "waiting for the first role\n");
	check(VipConnectWait(via->nic, address(via, via->attributes.LocalNicAddress, local), VIP_INFINITE,
			     (VIP_NET_ADDRESS *)remote, &attributes, &connection),
	      "VipConnectWait");
	check(VipConnectAccept(connection, via->vi), "VipConnectAccept");
	return &via->channel;
}

struct channel *client_channel(const char *nic_name, const unsigned char *host, size_t host_length)
{
	struct via_channel *via = new_channel(nic_name);
	unsigned long local[ADDRESS_BYTES / sizeof(long)], remote[ADDRESS_BYTES / sizeof(long)];
	const struct timespec pause = { 0, 10000000 };
	VIP_VI_ATTRIBUTES attributes;
	time_t began = time(NULL);
	VIP_RETURN code;

	if (host_length != via->attributes.NicAddressLen) {
		fprintf(stderr, "a NIC's address has %u bytes here\n", (unsigned int)via->attributes.NicAddressLen);
		exit(2);
	}
	for (;;) {
		code = VipConnectRequest(via->vi, address(via, via->attributes.LocalNicAddress, local),
					 address(via, host, remote), CONNECT_MS, &attributes);
		if (code != VIP_NO_MATCH || (unsigned long)(time(NULL) - began) > CONNECT_MS / 1000)
			break;
		nanosleep(&pause, NULL);
	}
	check(code, "VipConnectRequest");
	return &via->channel;
}
