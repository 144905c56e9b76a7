/*
 * What a child may do after fork: nothing with what its parent has, everything with NICs that it opens itself. And nothing that
 * it does disturbs its parent.
 *
 * usage: fork NIC CHILDS-NIC GRANDCHILDS-NIC
 */
#define _POSIX_C_SOURCE 200112L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vipl.h>

#define MESSAGES 100
#define SIZE 64
#define ADDRESS_SIZE 64
#define DISCRIMINATOR "fork"

#define CHECK(call) expect(__LINE__, #call, (int)(call), VIP_SUCCESS)
#define REFUSED(call) expect(__LINE__, #call, (int)(call), VIP_INVALID_PARAMETER)

/* What a process has of one NIC. */
struct side {
	VIP_NIC_HANDLE nic;
	VIP_NIC_ATTRIBUTES attributes;
	VIP_PROTECTION_HANDLE tag;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE client, server;
	char *memory;
	VIP_MEM_HANDLE handle;
};

static void expect(int line, const char *what, int code, int expected)
{
	if (code == expected)
		return;
	fprintf(stderr, "fork.c:%d: %s: %d instead of %d\n", line, what, code, expected);
	_exit(1);
}

static VIP_NET_ADDRESS *new_address(const struct side *side)
{
	VIP_NET_ADDRESS *address = calloc(1, ADDRESS_SIZE);
	VIP_UINT16 length = side->attributes.NicAddressLen;

	address->HostAddressLen = length;
	address->DiscriminatorLen = (VIP_UINT16)strlen(DISCRIMINATOR);
	memcpy(address->HostAddress, side->attributes.LocalNicAddress, length);
	memcpy(address->HostAddress + length, DISCRIMINATOR, strlen(DISCRIMINATOR));
	return address;
}

/* The first two descriptors are a receive and a send, and what follows their messages. */
static VIP_DESCRIPTOR *descriptor(const struct side *side, int i)
{
	return (VIP_DESCRIPTOR *)side->memory + i;
}

static char *message(const struct side *side, int i)
{
	return side->memory + 2 * sizeof(VIP_DESCRIPTOR) + i * SIZE;
}

static void open_side(struct side *side, const char *name)
{
	VIP_VI_ATTRIBUTES attributes;
	void *memory;

	CHECK(VipOpenNic(name, &side->nic));
	CHECK(VipQueryNic(side->nic, &side->attributes));
	CHECK(VipCreatePtag(side->nic, &side->tag));
	CHECK(VipCreateCQ(side->nic, 4, &side->cq));
	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
	attributes.MaxTransferSize = side->attributes.MaxTransferSize;
	CHECK(VipCreateVi(side->nic, &attributes, side->cq, NULL, &side->client));
	CHECK(VipCreateVi(side->nic, &attributes, NULL, NULL, &side->server));
	memory = NULL;
	if (posix_memalign(&memory, 4096, 4096) != 0)
		_exit(1);
	side->memory = memory;
	CHECK(VipRegisterMem(side->nic, side->memory, 4096, NULL, &side->handle));
}

static void *serve(void *context)
{
	struct side *side = context;
	VIP_NET_ADDRESS *local = new_address(side), *remote = calloc(1, ADDRESS_SIZE);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	CHECK(VipConnectWait(side->nic, local, VIP_INFINITE, remote, &attributes, &connection));
	CHECK(VipConnectAccept(connection, side->server));
	free(local);
	free(remote);
	return NULL;
}

static void connect_side(struct side *side)
{
	VIP_NET_ADDRESS *address = new_address(side);
	VIP_VI_ATTRIBUTES attributes;
	pthread_t thread;
	VIP_RETURN code;

	if (pthread_create(&thread, NULL, serve, side) != 0)
		_exit(1);
	while ((code = VipConnectRequest(side->client, address, address, 5000, &attributes)) ==
	       VIP_NO_MATCH)
		;
	CHECK(code);
	pthread_join(thread, NULL);
	free(address);
}

static void prepare(const struct side *side, int i)
{
	VIP_DESCRIPTOR *prepared = descriptor(side, i);

	memset(prepared, 0, sizeof(*prepared));
	prepared->CS.SegCount = 1;
	prepared->CS.Length = SIZE;
	prepared->DS[0].Local.Data.Address = message(side, i);
	prepared->DS[0].Local.Handle = side->handle;
	prepared->DS[0].Local.Length = SIZE;
}

static void exchange(struct side *side)
{
	VIP_DESCRIPTOR *done;
	VIP_BOOLEAN is_receive;
	VIP_VI_HANDLE vi;
	int i;

	for (i = 0; i < MESSAGES; i++) {
		prepare(side, 0);
		CHECK(VipPostRecv(side->server, descriptor(side, 0), side->handle));
		prepare(side, 1);
		memset(message(side, 1), i, SIZE);
		CHECK(VipPostSend(side->client, descriptor(side, 1), side->handle));
		CHECK(VipRecvWait(side->server, VIP_INFINITE, &done));
		if (memcmp(message(side, 0), message(side, 1), SIZE) != 0)
			expect(__LINE__, "the message is corrupt", i, -1);
		CHECK(VipCQWait(side->cq, VIP_INFINITE, &vi, &is_receive));
		CHECK(VipSendDone(side->client, &done));
	}
}

static void close_side(struct side *side)
{
	CHECK(VipDisconnect(side->client));
	CHECK(VipDisconnect(side->server));
	CHECK(VipDestroyVi(side->client));
	CHECK(VipDestroyVi(side->server));
	CHECK(VipDestroyCQ(side->cq));
	CHECK(VipDestroyPtag(side->nic, side->tag));
	CHECK(VipDeregisterMem(side->nic, side->memory, side->handle));
	CHECK(VipCloseNic(side->nic));
}

static void try_what_is_the_parents(struct side *side)
{
	VIP_DESCRIPTOR own, *done;
	VIP_VI_ATTRIBUTES attributes;
	VIP_MEM_ATTRIBUTES memory;
	VIP_PROTECTION_HANDLE tag;
	VIP_MEM_HANDLE handle;
	VIP_BOOLEAN empty;
	VIP_VI_STATE state;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE vi;

	memset(&own, 0, sizeof(own));
	memset(&attributes, 0, sizeof(attributes));
	REFUSED(VipPostSend(side->client, &own, side->handle));
	REFUSED(VipPostRecv(side->server, &own, side->handle));
	REFUSED(VipSendDone(side->client, &done));
	REFUSED(VipRecvDone(side->server, &done));
	REFUSED(VipRecvWait(side->server, 1, &done));
	REFUSED(VipCQDone(side->cq, &vi, &empty));
	REFUSED(VipCQWait(side->cq, 1, &vi, &empty));
	REFUSED(VipQueryVi(side->client, &state, &attributes, &empty, &empty));
	REFUSED(VipDisconnect(side->client));
	REFUSED(VipDestroyVi(side->client));
	REFUSED(VipDestroyCQ(side->cq));
	REFUSED(VipDestroyPtag(side->nic, side->tag));
	REFUSED(VipCreatePtag(side->nic, &tag));
	REFUSED(VipCreateCQ(side->nic, 1, &cq));
	REFUSED(VipCreateVi(side->nic, &attributes, NULL, NULL, &vi));
	REFUSED(VipRegisterMem(side->nic, &own, sizeof(own), NULL, &handle));
	REFUSED(VipQueryMem(side->nic, side->memory, side->handle, &memory));
	REFUSED(VipDeregisterMem(side->nic, side->memory, side->handle));
	REFUSED(VipErrorCallback(side->nic, NULL, NULL));
	REFUSED(VipNSInit(side->nic, NULL));
	REFUSED(VipCloseNic(side->nic));
}

static void in_child(int line, void (*run)(struct side *, char **), struct side *side,
		     char **nics)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(60);
		run(side, nics);
		/* With exit handlers, as a program ends that does not know better. */
		exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		status = -1;
	expect(line, "a child", status, 0);
}

static void own_nic(struct side *parents, char **nics)
{
	struct side own;

	(void)parents;
	open_side(&own, nics[0]);
	connect_side(&own);
	exchange(&own);
	close_side(&own);
}

/* Its own objects, and a child of its own, do not make the handles of others good. */
static void refused(struct side *parents, char **nics)
{
	struct side own;

	try_what_is_the_parents(parents);
	open_side(&own, nics[0]);
	try_what_is_the_parents(parents);
	in_child(__LINE__, own_nic, &own, nics + 1);
	connect_side(&own);
	exchange(&own);
	close_side(&own);
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc != 4)
		return 2;
	open_side(&side, argv[1]);
	connect_side(&side);
	exchange(&side);
	in_child(__LINE__, refused, &side, argv + 2);
	exchange(&side);
	in_child(__LINE__, own_nic, &side, argv + 2);
	exchange(&side);
	close_side(&side);
	return 0;
}
