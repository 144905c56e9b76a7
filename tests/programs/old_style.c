/*
 * A VIA program in the manner of the years around 2000: C89, pthreads, memory from malloc, and
 * no more care than its time took. It connects two VIs of one NIC to each other.
 *
 * usage: old_style NIC [POLLS]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vipl.h>

#define DESCRIPTORS 16
#define MESSAGES 1000
#define POLLS 40000000L
#define DATA_SIZE 40001
#define MESSAGE_SIZE 1999
#define ADDRESS_SIZE 64
#define DISCRIMINATOR "old style"

#define FAIL(what) fail(__LINE__, (what), 0)
#define CHECK(call)                                              \
	do {                                                     \
		VIP_RETURN returned = (call);                    \
		if (returned != VIP_SUCCESS)                     \
			fail(__LINE__, #call, (int)returned);    \
	} while (0)

static VIP_NIC_HANDLE nic;
static VIP_NIC_ATTRIBUTES nic_attributes;
static VIP_VI_HANDLE client, server;
static VIP_CQ_HANDLE send_cq;

static char *descriptor_memory, *data_memory, *data;
static VIP_MEM_HANDLE descriptor_handle, send_handle, receive_handle;
static VIP_DESCRIPTOR *sends[DESCRIPTORS], *receives[DESCRIPTORS];

static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t error_seen = PTHREAD_COND_INITIALIZER;
static int connections_lost;

static void fail(int line, const char *what, int code)
{
	fprintf(stderr, "old_style.c:%d: %s (%d)\n", line, what, code);
	exit(1);
}

static void on_error(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
	if (context != &connections_lost || error->NicHandle != nic)
		FAIL("the error is not for this NIC");
	if (error->ErrorCode != VIP_ERROR_CONN_LOST || error->ViHandle != server)
		fail(__LINE__, "an error that nothing has caused", (int)error->ErrorCode);
	pthread_mutex_lock(&error_lock);
	connections_lost++;
	pthread_cond_signal(&error_seen);
	pthread_mutex_unlock(&error_lock);
}

/* The discriminator stands behind the address's bytes, which nobody sets for a local address. */
static VIP_NET_ADDRESS *new_address(const VIP_UINT8 *host)
{
	VIP_NET_ADDRESS *address = malloc(ADDRESS_SIZE);

	if (address == NULL)
		FAIL("out of memory");
	memset(address, 0xa5, ADDRESS_SIZE);
	address->HostAddressLen = nic_attributes.NicAddressLen;
	address->DiscriminatorLen = (VIP_UINT16)strlen(DISCRIMINATOR);
	if (host != NULL)
		memcpy(address->HostAddress, host, nic_attributes.NicAddressLen);
	memcpy(address->HostAddress + nic_attributes.NicAddressLen, DISCRIMINATOR,
	       strlen(DISCRIMINATOR));
	return address;
}

static void open_nic(const char *name)
{
	CHECK(VipOpenNic(name, &nic));
	CHECK(VipQueryNic(nic, &nic_attributes));
	CHECK(VipErrorCallback(nic, &connections_lost, on_error));
	printf("%s: %lu VIs, %lu descriptors a queue, %lu bytes a message\n", nic_attributes.Name,
	       nic_attributes.MaxVI, nic_attributes.MaxDescriptorsPerQueue,
	       nic_attributes.MaxTransferSize);
}

/* One registration starts and ends in the middle of a page; another names the same bytes. */
static void register_memory(void)
{
	VIP_MEM_ATTRIBUTES attributes;
	unsigned long aligned;
	int i;

	descriptor_memory = malloc((2 * DESCRIPTORS + 1) * sizeof(VIP_DESCRIPTOR));
	data_memory = malloc(DATA_SIZE + 3);
	if (descriptor_memory == NULL || data_memory == NULL)
		FAIL("out of memory");
	aligned = ((unsigned long)descriptor_memory + VIP_DESCRIPTOR_ALIGNMENT - 1) &
		  ~(VIP_DESCRIPTOR_ALIGNMENT - 1UL);
	for (i = 0; i < DESCRIPTORS; i++) {
		sends[i] = (VIP_DESCRIPTOR *)aligned + i;
		receives[i] = (VIP_DESCRIPTOR *)aligned + DESCRIPTORS + i;
	}
	data = data_memory + 3;
	memset(&attributes, 0, sizeof(attributes));
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipRegisterMem(nic, descriptor_memory, (2 * DESCRIPTORS + 1) * sizeof(VIP_DESCRIPTOR),
			     NULL, &descriptor_handle));
	CHECK(VipRegisterMem(nic, data, DATA_SIZE, NULL, &send_handle));
	CHECK(VipRegisterMem(nic, data, DATA_SIZE, &attributes, &receive_handle));
	if (descriptor_handle == 0 || send_handle == 0 || receive_handle == 0)
		FAIL("a memory handle is 0");
	if (send_handle == receive_handle)
		FAIL("two registrations have one handle");
}

static void create_vis(void)
{
	VIP_VI_ATTRIBUTES attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
	attributes.MaxTransferSize = nic_attributes.MaxTransferSize;
	CHECK(VipCreateCQ(nic, 1, &send_cq));
	CHECK(VipCreateVi(nic, &attributes, send_cq, NULL, &client));
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &server));
}

static void *serve(void *unused)
{
	VIP_NET_ADDRESS *local = new_address(NULL), *remote = malloc(ADDRESS_SIZE);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	CHECK(VipConnectWait(nic, local, VIP_INFINITE, remote, &attributes, &connection));
	if (memcmp(remote->HostAddress, nic_attributes.LocalNicAddress,
		   nic_attributes.NicAddressLen) != 0)
		FAIL("the request is from somebody else");
	if (attributes.MaxTransferSize != nic_attributes.MaxTransferSize)
		FAIL("the request has other attributes");
	CHECK(VipConnectAccept(connection, server));
	free(local);
	free(remote);
	return unused;
}

static void connect_vis(void)
{
	VIP_NET_ADDRESS *local = new_address(NULL);
	VIP_NET_ADDRESS *remote = new_address(nic_attributes.LocalNicAddress);
	VIP_VI_ATTRIBUTES attributes;
	pthread_t thread;
	VIP_RETURN code;

	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		FAIL("no thread");
	while ((code = VipConnectRequest(client, local, remote, 5000, &attributes)) == VIP_NO_MATCH)
		;
	CHECK(code);
	pthread_join(thread, NULL);
	free(local);
	free(remote);
}

static void prepare(VIP_DESCRIPTOR *descriptor, VIP_UINT16 segments, char *address,
		    VIP_MEM_HANDLE handle, VIP_UINT32 length)
{
	memset(descriptor, 0, sizeof(*descriptor));
	descriptor->CS.SegCount = segments;
	descriptor->CS.Length = length;
	descriptor->DS[0].Local.Data.Address = address;
	descriptor->DS[0].Local.Handle = handle;
	descriptor->DS[0].Local.Length = length;
}

static void post_receive(VIP_VI_HANDLE vi, int i)
{
	prepare(receives[i], 1, data + 20001 + i * 32, receive_handle, MESSAGE_SIZE);
	CHECK(VipPostRecv(vi, receives[i], descriptor_handle));
}

/* By turns: a poll, a wait with a limit, and a wait without one. */
static VIP_DESCRIPTOR *receive(int message)
{
	VIP_DESCRIPTOR *descriptor;
	VIP_RETURN code;

	if (message % 10 == 0) {
		CHECK(VipRecvWait(server, VIP_INFINITE, &descriptor));
	} else if (message % 10 == 1) {
		while ((code = VipRecvWait(server, 1, &descriptor)) == VIP_TIMEOUT)
			if (descriptor != NULL)
				FAIL("a descriptor and a time-out");
		CHECK(code);
	} else {
		while ((code = VipRecvDone(server, &descriptor)) == VIP_NOT_DONE)
			if (descriptor != NULL)
				FAIL("a descriptor that is not done");
		CHECK(code);
	}
	return descriptor;
}

/* A CQ entry for every send, though the CQ was made for one. */
static void finish_send(VIP_DESCRIPTOR *expected)
{
	VIP_DESCRIPTOR *descriptor;
	VIP_BOOLEAN is_receive;
	VIP_VI_HANDLE vi;

	CHECK(VipCQWait(send_cq, VIP_INFINITE, &vi, &is_receive));
	if (vi != client || is_receive)
		FAIL("the completion is another queue's");
	CHECK(VipSendDone(client, &descriptor));
	if (descriptor != expected)
		FAIL("sends are done in another order");
}

/* Polls as a program does that has nothing else to do; what it waits for is sent last of all. */
static void poll_for_long(long polls)
{
	VIP_DESCRIPTOR *descriptor;
	VIP_RETURN code;
	long i;

	post_receive(server, 0);
	for (i = 0; i < polls; i++) {
		code = VipRecvDone(server, &descriptor);
		if (code != VIP_NOT_DONE || descriptor != NULL)
			fail(__LINE__, "a message that nobody has sent", (int)code);
	}
	prepare(sends[0], 0, NULL, 0, 0);
	CHECK(VipPostSend(client, sends[0], descriptor_handle));
	while ((code = VipRecvDone(server, &descriptor)) == VIP_NOT_DONE)
		i++;
	CHECK(code);
	if (descriptor != receives[0])
		FAIL("another receive than the one that was posted");
	finish_send(sends[0]);
	printf("%ld polls\n", i);
}

static VIP_UINT32 length_of(int message)
{
	return message % 5 == 0 ? 0 : (VIP_UINT32)(1 + message % MESSAGE_SIZE);
}

/*
 * As many messages on their way as there are descriptors. Empty ones come in both shapes. The CQ grows with entries in it, as
 * programs let it grow with their connections.
 */
static void transfer(void)
{
	VIP_DESCRIPTOR *descriptor;
	VIP_UINT32 length;
	int i, message;
	char *source;

	for (i = 0; i < DESCRIPTORS; i++)
		post_receive(server, i);
	for (message = 0; message < MESSAGES; message++) {
		i = message % DESCRIPTORS;
		length = length_of(message);
		source = data + 1 + i;
		memset(source, message & 0x7f, length);
		prepare(sends[i], length == 0 && message % 2 == 0 ? 0 : 1, source, send_handle,
			length);
		sends[i]->CS.Control = VIP_CONTROL_OP_SENDRECV | VIP_CONTROL_IMMEDIATE;
		sends[i]->CS.ImmediateData = (VIP_UINT32)-message;
		CHECK(VipPostSend(client, sends[i], descriptor_handle));

		descriptor = receive(message);
		if (descriptor != receives[i])
			FAIL("receives are done in another order");
		if ((int)descriptor->CS.ImmediateData != -message ||
		    descriptor->CS.Length != length)
			FAIL("the message is another one");
		if (memcmp(descriptor->DS[0].Local.Data.Address, source, length) != 0)
			FAIL("the message is corrupt");
		if (message % 64 == 2)
			CHECK(VipResizeCQ(send_cq, 64 + (VIP_ULONG)message / 2));
		/* Sends pile up in the CQ, four at a time. */
		if (message % 4 == 3)
			for (i = message - 3; i <= message; i++)
				finish_send(sends[i % DESCRIPTORS]);
		if (message + DESCRIPTORS < MESSAGES)
			post_receive(server, message % DESCRIPTORS);
	}
	printf("%d messages\n", MESSAGES);
}

/* One side leaves; the other hears of it, and gets its receives back. */
static void disconnect_vis(void)
{
	VIP_VI_ATTRIBUTES attributes;
	VIP_BOOLEAN sends_empty, receives_empty;
	VIP_DESCRIPTOR *descriptor;
	VIP_VI_STATE state;
	VIP_RETURN code;
	int i;

	for (i = 0; i < DESCRIPTORS; i++)
		post_receive(server, i);
	CHECK(VipDisconnect(client));
	VipDisconnect(client);
	pthread_mutex_lock(&error_lock);
	while (connections_lost == 0)
		pthread_cond_wait(&error_seen, &error_lock);
	pthread_mutex_unlock(&error_lock);
	CHECK(VipQueryVi(server, &state, &attributes, &sends_empty, &receives_empty));
	if (state == VIP_STATE_CONNECTED)
		FAIL("the peer has gone, but the VI is connected");
	VipDisconnect(server);
	VipDisconnect(server);
	for (i = 0; (code = VipRecvDone(server, &descriptor)), descriptor != NULL; i++) {
		if (code != VIP_DESCRIPTOR_ERROR || i >= DESCRIPTORS || descriptor != receives[i])
			fail(__LINE__, "a receive came back in another way", (int)code);
		if (!(descriptor->CS.Status & VIP_STATUS_DESC_FLUSHED_ERROR))
			FAIL("a receive came back, but not flushed");
	}
	if (i != DESCRIPTORS)
		fail(__LINE__, "receives are lost", DESCRIPTORS - i);
	if (code != VIP_DESCRIPTOR_ERROR)
		fail(__LINE__, "the queue is not empty after all", (int)code);
}

/* Handles of what was never made, or is something else. */
static void use_garbage(void)
{
	static int nothing;
	VIP_PVOID garbage[5];
	VIP_DESCRIPTOR *descriptor;
	VIP_BOOLEAN is_receive;
	VIP_VI_HANDLE vi;
	int i;

	garbage[0] = NULL;
	garbage[1] = &client;
	garbage[2] = &nothing;
	garbage[3] = (VIP_PVOID)1;
	garbage[4] = (VIP_PVOID)-1L;
	for (i = 0; i < 5; i++) {
		if (VipDestroyVi(garbage[i]) != VIP_INVALID_PARAMETER ||
		    VipDisconnect(garbage[i]) != VIP_INVALID_PARAMETER ||
		    VipPostSend(garbage[i], sends[0], descriptor_handle) != VIP_INVALID_PARAMETER ||
		    VipPostRecv(garbage[i], receives[0], descriptor_handle) != VIP_INVALID_PARAMETER ||
		    VipRecvDone(garbage[i], &descriptor) != VIP_INVALID_PARAMETER ||
		    VipSendWait(garbage[i], 1, &descriptor) != VIP_INVALID_PARAMETER ||
		    VipDestroyCQ(garbage[i]) != VIP_INVALID_PARAMETER ||
		    VipCQDone(garbage[i], &vi, &is_receive) != VIP_INVALID_PARAMETER ||
		    VipConnectReject(garbage[i]) != VIP_INVALID_PARAMETER ||
		    VipCloseNic(garbage[i]) != VIP_INVALID_PARAMETER)
			fail(__LINE__, "a handle of garbage is taken for something", i);
	}
	if (VipDestroyVi(nic) != VIP_INVALID_PARAMETER || VipCloseNic(client) != VIP_INVALID_PARAMETER ||
	    VipDestroyCQ(server) != VIP_INVALID_PARAMETER)
		FAIL("a handle is taken for one of another kind");
	if (VipDeregisterMem(nic, data, 0) != VIP_INVALID_PARAMETER ||
	    VipDeregisterMem(nic, data, 0xffffffff) != VIP_INVALID_PARAMETER ||
	    VipDeregisterMem(nic, data, descriptor_handle) != VIP_INVALID_PARAMETER)
		FAIL("memory is deregistered that is not");
}

static void close_nic(void)
{
	int i;

	for (i = 0; i < DESCRIPTORS; i++)
		post_receive(client, i);
	use_garbage();
	CHECK(VipDestroyVi(client));
	CHECK(VipDestroyVi(server));
	if (VipDestroyVi(server) == VIP_SUCCESS)
		FAIL("a VI is destroyed twice");
	CHECK(VipDestroyCQ(send_cq));
	CHECK(VipDeregisterMem(nic, data, receive_handle));
	CHECK(VipDeregisterMem(nic, data, send_handle));
	CHECK(VipDeregisterMem(nic, descriptor_memory, descriptor_handle));
	CHECK(VipCloseNic(nic));
	if (connections_lost != 1)
		fail(__LINE__, "a connection is lost more than once", connections_lost);
}

int main(int argc, char **argv)
{
	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: %s NIC [POLLS]\n", argv[0]);
		return 1;
	}
	open_nic(argv[1]);
	register_memory();
	create_vis();
	connect_vis();
	poll_for_long(argc == 3 ? atol(argv[2]) : POLLS);
	transfer();
	disconnect_vis();
	close_nic();
	printf("ok\n");
	free(descriptor_memory);
	free(data_memory);
	return 0;
}
