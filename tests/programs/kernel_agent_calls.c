/* The Kernel Agent's calls as functions, and the little of VIPL that a message needs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

#define SETTLE_TRIES 3000
#define SETTLE_PAUSE_US 10000

long counter(const char *name)
{
	char path[128], value[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/misc/vianic0/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, value, sizeof(value) - 1) <= 0)
		tap_bail_out("cannot read %s", path);
	close(fd);
	return atol(value);
}

long settled(const char *name, long wanted)
{
	int tries = 0;

	while (counter(name) != wanted && tries++ < SETTLE_TRIES)
		usleep(SETTLE_PAUSE_US);
	return counter(name);
}

bool nothing_left(void)
{
	return settled("contexts", 0) == 0 && settled("regions", 0) == 0 &&
	       settled("pending_unpins", 0) == 0 && settled("pinned_pages", 0) == 0;
}

static size_t whole_pages(size_t size)
{
	return (size + PAGE - 1) & ~(PAGE - 1);
}

size_t token_table_size(const struct vianic_open_context *info)
{
	return whole_pages(VIANIC_TOKEN_TABLE_ENTRIES +
			   (sizeof(struct vianic_token) << info->token_table_log2));
}

size_t mcq_size(const struct vianic_open_context *info)
{
	return whole_pages(VIANIC_MCQ_ENTRIES +
			   (sizeof(struct vianic_completion) << info->mcq_log2));
}

void *anonymous_pages(size_t pages)
{
	void *address = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (address == MAP_FAILED)
		tap_bail_out("out of memory");
	return address;
}

static int status_of(int fd, unsigned long request, void *call, const uint32_t *status)
{
	return ioctl(fd, request, call) ? -errno : (int)*status;
}

int open_context(struct context *ctx)
{
	int status;

	*ctx = (struct context){ .info.abi_version = VIANIC_ABI_VERSION };
	ctx->fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (ctx->fd < 0)
		return -errno;
	status = status_of(ctx->fd, VIANIC_IOC_OPEN_CONTEXT, &ctx->info, &ctx->info.status);
	if (!status)
		status = map_context(ctx);
	if (status)
		close(ctx->fd);
	return status;
}

static void *map(int fd, size_t size, int protection, off_t offset)
{
	return mmap(NULL, size, protection, MAP_SHARED, fd, offset);
}

int map_context(struct context *ctx)
{
	const int both = PROT_READ | PROT_WRITE;

	ctx->token_table = map(ctx->fd, token_table_size(&ctx->info), both,
			       VIANIC_MMAP_TOKEN_TABLE);
	ctx->mcq = map(ctx->fd, mcq_size(&ctx->info), both, VIANIC_MMAP_MCQ);
	ctx->nra = map(ctx->fd, VIANIC_NRA_SIZE, both, VIANIC_MMAP_NRA);
	ctx->doorbell = map(ctx->fd, PAGE, both, VIANIC_MMAP_DOORBELL);
	ctx->registers = map(ctx->fd, 2 * PAGE, PROT_READ, VIANIC_MMAP_REGISTERS);
	if (ctx->token_table == MAP_FAILED || ctx->mcq == MAP_FAILED || ctx->nra == MAP_FAILED ||
	    ctx->doorbell == MAP_FAILED || ctx->registers == MAP_FAILED)
		return -errno;
	return 0;
}

void unmap_context(struct context *ctx)
{
	munmap(ctx->token_table, token_table_size(&ctx->info));
	munmap(ctx->mcq, mcq_size(&ctx->info));
	munmap((void *)ctx->nra, VIANIC_NRA_SIZE);
	munmap((void *)ctx->doorbell, PAGE);
	munmap((void *)ctx->registers, 2 * PAGE);
}

void close_context(struct context *ctx)
{
	unmap_context(ctx);
	close(ctx->fd);
}

int object_call(int fd, unsigned long request, uint32_t *object)
{
	struct vianic_object_call call = { .object = *object };
	int status = status_of(fd, request, &call, &call.status);

	*object = call.object;
	return status;
}

int object_call_on(int fd, unsigned long request, uint32_t object)
{
	return object_call(fd, request, &object);
}

int register_memory(int fd, const void *address, uint64_t length, uint32_t ptag, uint32_t access,
		    uint32_t *handle)
{
	struct vianic_register_memory call = {
		.address = (uintptr_t)address,
		.length = length,
		.ptag = ptag,
		.access = access,
	};
	int status = status_of(fd, VIANIC_IOC_REGISTER_MEMORY, &call, &call.status);

	*handle = call.handle;
	return status;
}

int deregister_memory(int fd, const void *address, uint32_t handle)
{
	struct vianic_deregister_memory call = {
		.address = (uintptr_t)address,
		.handle = handle,
	};

	return status_of(fd, VIANIC_IOC_DEREGISTER_MEMORY, &call, &call.status);
}

int set_memory_attributes(int fd, const void *address, uint32_t handle, uint32_t ptag,
			  uint32_t access)
{
	struct vianic_set_memory_attributes call = {
		.address = (uintptr_t)address,
		.handle = handle,
		.ptag = ptag,
		.access = access,
	};

	return status_of(fd, VIANIC_IOC_SET_MEMORY_ATTRIBUTES, &call, &call.status);
}

int set_vi_attributes(int fd, struct vianic_set_vi_attributes call)
{
	return status_of(fd, VIANIC_IOC_SET_VI_ATTRIBUTES, &call, &call.status);
}

int create_vi_with(int fd, struct vianic_create_vi_call call, uint32_t *vi)
{
	int status = status_of(fd, VIANIC_IOC_CREATE_VI, &call, &call.status);

	*vi = call.vi;
	return status;
}

int create_vi(int fd, uint32_t *vi)
{
	struct vianic_create_vi_call call = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY,
		.attributes.max_transfer_size = 1 << 20,
		.send_cq = VIANIC_NO_CQ,
		.receive_cq = VIANIC_NO_CQ,
	};

	return create_vi_with(fd, call, vi);
}

static struct vianic_net_address net_address(const char *name)
{
	struct vianic_net_address address = { .discriminator_len = strlen(name) };

	memcpy(address.discriminator, name, strlen(name));
	return address;
}

int connect_wait(int fd, const char *name, uint64_t timeout_ms, struct vianic_connect_wait *request)
{
	struct vianic_connect_wait call = {
		.local = net_address(name),
		.timeout_ms = timeout_ms,
	};
	int status = status_of(fd, VIANIC_IOC_CONNECT_WAIT, &call, &call.status);

	if (request)
		*request = call;
	return status;
}

int connect_answer(int fd, unsigned long request, uint32_t connection, uint32_t vi)
{
	struct vianic_connect_answer call = { .connection = connection, .vi = vi };

	return status_of(fd, request, &call, &call.status);
}

int connect_request(int fd, uint32_t vi, const char *name, uint64_t timeout_ms)
{
	struct vianic_connect_request call = {
		.local = net_address("client"),
		.remote = net_address(name),
		.timeout_ms = timeout_ms,
		.vi = vi,
	};

	return status_of(fd, VIANIC_IOC_CONNECT_REQUEST, &call, &call.status);
}

int peer_request(int fd, uint32_t vi, const char *name, uint64_t timeout_ms)
{
	struct vianic_connect_request call = {
		.local = net_address(name),
		.remote = net_address(name),
		.timeout_ms = timeout_ms,
		.vi = vi,
	};

	return status_of(fd, VIANIC_IOC_CONNECT_PEER_REQUEST, &call, &call.status);
}

int peer_wait(int fd, uint32_t vi, uint64_t timeout_ms, struct vianic_vi_attributes *attributes)
{
	struct vianic_connect_peer_wait call = { .vi = vi, .timeout_ms = timeout_ms };
	int status = status_of(fd, VIANIC_IOC_CONNECT_PEER_WAIT, &call, &call.status);

	if (attributes)
		*attributes = call.attributes;
	return status;
}

int wait_for_word(int fd, uint32_t word, uint32_t *seen, uint64_t timeout_ms)
{
	struct vianic_wait call = { .nra_word = word, .seen = *seen, .timeout_ms = timeout_ms };
	int status = status_of(fd, VIANIC_IOC_WAIT, &call, &call.status);

	*seen = call.seen;
	return status;
}

int connect_when_ready(int fd, uint32_t vi, const char *name, uint64_t timeout_ms)
{
	int status;

	while ((status = connect_request(fd, vi, name, timeout_ms)) == VIANIC_STATUS_NO_MATCH)
		usleep(1000);
	return status;
}

struct acceptor {
	struct context *ctx;
	uint32_t vi;
	const char *name;
	int status;
};

static void *accept_one(void *argument)
{
	struct acceptor *acceptor = argument;
	struct vianic_connect_wait request;
	int fd = acceptor->ctx->fd;

	acceptor->status = connect_wait(fd, acceptor->name, 30000, &request);
	if (!acceptor->status)
		acceptor->status = connect_answer(fd, VIANIC_IOC_CONNECT_ACCEPT,
						  request.connection, acceptor->vi);
	return NULL;
}

int connect_pair(struct context *ctx, uint32_t vi, struct context *peer, uint32_t peer_vi,
		 const char *name)
{
	struct acceptor acceptor = { .ctx = peer, .vi = peer_vi, .name = name };
	pthread_t thread;
	int status;

	pthread_create(&thread, NULL, accept_one, &acceptor);
	status = connect_when_ready(ctx->fd, vi, name, 30000);
	pthread_join(thread, NULL);
	return status ? status : acceptor.status;
}

void ring_doorbell(struct context *ctx)
{
	volatile uint8_t *doorbell = ctx->doorbell + ctx->info.doorbell_offset;

	*(volatile uint16_t *)doorbell = ctx->info.doorbell_value;
}

void post(struct context *ctx, uint32_t vi, bool receive, struct descriptor *descriptor,
	  uint32_t handle)
{
	_Atomic uint32_t *last_inserted =
		(void *)(ctx->token_table + VIANIC_TOKEN_TABLE_LAST_INSERTED);
	_Atomic uint32_t *last_accepted =
		(void *)(ctx->token_table + VIANIC_TOKEN_TABLE_LAST_ACCEPTED);
	_Atomic uint32_t *nic_state = (void *)(ctx->token_table + VIANIC_TOKEN_TABLE_NIC_STATE);
	uint32_t index = atomic_fetch_add(last_inserted, 1) + 1;
	uint32_t mask = (1U << ctx->info.token_table_log2) - 1;
	struct vianic_token token = {
		.sequence = index,
		.vi = vi,
		.kind = VIANIC_TOKEN_KIND_INLINE_DESCRIPTOR,
		.flags = receive ? VIANIC_TOKEN_RECEIVE : 0,
		.descriptor = (uintptr_t)descriptor,
	};
	uint64_t words[sizeof(token) / sizeof(uint64_t)];
	_Atomic uint64_t *slot = (void *)(ctx->token_table + VIANIC_TOKEN_TABLE_ENTRIES +
					  sizeof(token) * (index & mask));
	size_t i;

	descriptor->status = 0;
	token.body[0] = handle | (uint64_t)descriptor->control << 32 |
			(uint64_t)descriptor->segments << 48;
	token.body[1] = descriptor->immediate | (uint64_t)descriptor->length << 32;
	memcpy(&token.body[2], descriptor->segment, sizeof(descriptor->segment));
	memcpy(words, &token, sizeof(token));
	/* The word with the sequence makes the entry valid. */
	for (i = 1; i < sizeof(words) / sizeof(words[0]); i++)
		atomic_store_explicit(&slot[i], words[i], memory_order_relaxed);
	atomic_store_explicit(&slot[0], words[0], memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(nic_state) != VIANIC_NIC_STATE_POLLING &&
	    atomic_load(last_accepted) + 1 == index)
		ring_doorbell(ctx);
}

static bool is_done(struct descriptor *descriptor)
{
	return atomic_load((_Atomic uint32_t *)&descriptor->status) & STATUS_DONE;
}

int wait_for_descriptor(struct context *ctx, uint32_t vi, bool receive,
			struct descriptor *descriptor)
{
	uint32_t word = VIANIC_NRA_VI + 2 * vi + receive, seen = 0;
	int status = 0;

	wait_for_word(ctx->fd, word, &seen, 0);
	while (!status) {
		if (is_done(descriptor))
			return 0;
		ctx->nra[word] = 1;
		atomic_thread_fence(memory_order_seq_cst);
		if (is_done(descriptor))
			return 0;
		status = wait_for_word(ctx->fd, word, &seen, 30000);
	}
	return status;
}
