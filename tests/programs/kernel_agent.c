/*
 * The Kernel Agent's files: calls with every size and every bad pointer, mappings, and objects.
 * Runs as root in a guest with one card, and wants the card for itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

#define TIME_LIMIT_S 170
#define KERNEL_ADDRESS 0xffff800000000000UL

static const struct {
	const char *name;
	unsigned long request;
	bool needs_context;
} calls[] = {
	{ "QUERY_NIC", VIANIC_IOC_QUERY_NIC, false },
	{ "OPEN_CONTEXT", VIANIC_IOC_OPEN_CONTEXT, false },
	{ "CREATE_PTAG", VIANIC_IOC_CREATE_PTAG, true },
	{ "DESTROY_PTAG", VIANIC_IOC_DESTROY_PTAG, true },
	{ "REGISTER_MEMORY", VIANIC_IOC_REGISTER_MEMORY, true },
	{ "DEREGISTER_MEMORY", VIANIC_IOC_DEREGISTER_MEMORY, true },
	{ "CREATE_CQ", VIANIC_IOC_CREATE_CQ, true },
	{ "DESTROY_CQ", VIANIC_IOC_DESTROY_CQ, true },
	{ "CREATE_VI", VIANIC_IOC_CREATE_VI, true },
	{ "DESTROY_VI", VIANIC_IOC_DESTROY_VI, true },
	{ "CONNECT_WAIT", VIANIC_IOC_CONNECT_WAIT, true },
	{ "CONNECT_ACCEPT", VIANIC_IOC_CONNECT_ACCEPT, true },
	{ "CONNECT_REJECT", VIANIC_IOC_CONNECT_REJECT, true },
	{ "CONNECT_REQUEST", VIANIC_IOC_CONNECT_REQUEST, true },
	{ "DISCONNECT", VIANIC_IOC_DISCONNECT, true },
	{ "WAIT", VIANIC_IOC_WAIT, true },
	{ "SHUT_DOWN", VIANIC_IOC_SHUT_DOWN, true },
	{ "SET_MEMORY_ATTRIBUTES", VIANIC_IOC_SET_MEMORY_ATTRIBUTES, true },
	{ "SET_VI_ATTRIBUTES", VIANIC_IOC_SET_VI_ATTRIBUTES, true },
	{ "CONNECT_PEER_REQUEST", VIANIC_IOC_CONNECT_PEER_REQUEST, true },
	{ "CONNECT_PEER_WAIT", VIANIC_IOC_CONNECT_PEER_WAIT, true },
	{ "DISCOVER", VIANIC_IOC_DISCOVER, true },
};

#define CALLS (sizeof(calls) / sizeof(calls[0]))

static bool fails_with(int fd, unsigned long request, void *argument, int error)
{
	return ioctl(fd, request, argument) == -1 && errno == error;
}

static bool is_call(unsigned long request)
{
	size_t i;

	for (i = 0; i < CALLS; i++)
		if (calls[i].request == request)
			return true;
	return false;
}

/* A Kernel Agent may be older than the call that ends waits. */
static bool can_shut_down(int fd)
{
	return !fails_with(fd, VIANIC_IOC_SHUT_DOWN, NULL, ENOTTY);
}

static void test_unknown_calls(int fd)
{
	unsigned int direction, size, nr, taken = 0;
	uint8_t argument[1024] = { 0 };

	for (direction = 0; direction < 4; direction++)
		for (size = 0; size < sizeof(argument); size++)
			for (nr = 0; nr < 24; nr++) {
				unsigned long request = _IOC(direction, 0xb7, nr, size);

				if (!is_call(request) && !fails_with(fd, request, argument, ENOTTY))
					taken++;
			}
	tap_is(taken, 0, "calls of every other size, direction and number are ENOTTY");
	tap_ok(fails_with(fd, _IOC(_IOC_READ | _IOC_WRITE, 0xb8, 1, sizeof(struct vianic_nic_info)),
			  argument, ENOTTY), "another device's call is ENOTTY");
}

static void test_bad_pointers(int fd)
{
	uint8_t *pages = anonymous_pages(2);
	size_t i;

	munmap(pages + PAGE, PAGE);
	for (i = 0; i < CALLS; i++) {
		unsigned long request = calls[i].request;

		if (request == VIANIC_IOC_SHUT_DOWN && !can_shut_down(fd))
			continue;
		tap_ok(fails_with(fd, request, NULL, EFAULT) &&
		       fails_with(fd, request, (void *)1, EFAULT) &&
		       fails_with(fd, request, (void *)-1, EFAULT) &&
		       fails_with(fd, request, (void *)KERNEL_ADDRESS, EFAULT) &&
		       fails_with(fd, request, pages + PAGE - _IOC_SIZE(request) + 1, EFAULT),
		       "%s: NULL, kernel and half-mapped pointers are EFAULT", calls[i].name);
	}
	munmap(pages, PAGE);
}

/* An answer that cannot be written is taken back. */
static void test_answers_undone(int fd)
{
	void *page = anonymous_pages(1), *memory = anonymous_pages(1);
	struct vianic_register_memory region = { .address = (uintptr_t)memory, .length = PAGE };
	struct vianic_create_vi_call vi = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY,
		.send_cq = VIANIC_NO_CQ,
		.receive_cq = VIANIC_NO_CQ,
	};
	uint32_t number = 99;

	mprotect(page, PAGE, PROT_READ);
	tap_ok(fails_with(fd, VIANIC_IOC_CREATE_CQ, page, EFAULT) &&
	       !object_call(fd, VIANIC_IOC_CREATE_CQ, &number) && number == 0,
	       "a CQ whose number cannot be told is not created");
	tap_ok(fails_with(fd, VIANIC_IOC_CREATE_PTAG, page, EFAULT) &&
	       !object_call(fd, VIANIC_IOC_CREATE_PTAG, &number) && number == 1,
	       "a ptag that cannot be told is not created");
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	memcpy(page, &vi, sizeof(vi));
	mprotect(page, PAGE, PROT_READ);
	tap_ok(fails_with(fd, VIANIC_IOC_CREATE_VI, page, EFAULT) &&
	       !create_vi(fd, &number) && number == 0,
	       "a VI whose number cannot be told is not created");
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	memcpy(page, &region, sizeof(region));
	mprotect(page, PAGE, PROT_READ);
	tap_ok(fails_with(fd, VIANIC_IOC_REGISTER_MEMORY, page, EFAULT) &&
	       settled("regions", 0) == 0 && settled("pinned_pages", 0) == 0,
	       "memory whose handle cannot be told is not registered");
	munmap(page, PAGE);
	munmap(memory, PAGE);
}

static void *wait_long(void *argument)
{
	uint32_t seen = 0;

	return (void *)(intptr_t)wait_for_word(*(int *)argument, 5, &seen, VIANIC_INFINITE_MS);
}

static void test_shut_down(int fd)
{
	uint32_t seen = 0;
	pthread_t thread;
	void *status;

	if (!can_shut_down(fd)) {
		tap_skip("SHUT_DOWN ends every wait", "this Kernel Agent does not have it");
		return;
	}
	pthread_create(&thread, NULL, wait_long, &fd);
	tap_is(object_call_on(fd, VIANIC_IOC_SHUT_DOWN, 0), 0, "SHUT_DOWN");
	pthread_join(thread, &status);
	tap_is((intptr_t)status, VIANIC_STATUS_CANCELLED, "SHUT_DOWN ends a wait under way");
	tap_is(wait_for_word(fd, 5, &seen, VIANIC_INFINITE_MS), VIANIC_STATUS_CANCELLED,
	       "a wait after SHUT_DOWN ends at once");
	tap_is(connect_wait(fd, "closed", VIANIC_INFINITE_MS, NULL), VIANIC_STATUS_CANCELLED,
	       "CONNECT_WAIT after SHUT_DOWN ends at once");
}

void test_calls(void)
{
	struct vianic_open_context open_call = { .abi_version = VIANIC_ABI_VERSION + 98 };
	struct vianic_nic_info info = { 0 };
	uint8_t unaligned[sizeof(info) + 1] = { 0 };
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	size_t i;

	if (fd < 0)
		tap_bail_out("cannot open %s: %s", DEVICE, strerror(errno));
	tap_ok(!ioctl(fd, VIANIC_IOC_QUERY_NIC, &info) && !info.status &&
	       info.registers.magic == VIANIC_REGISTERS_MAGIC, "QUERY_NIC without a context");
	tap_ok(!ioctl(fd, VIANIC_IOC_QUERY_NIC, unaligned + 1) &&
	       !memcmp(unaligned + 1, &info, offsetof(struct vianic_nic_info, registers.mdl_drained)),
	       "QUERY_NIC at an odd address");
	info.reserved = 1;
	tap_ok(fails_with(fd, VIANIC_IOC_QUERY_NIC, &info, EINVAL),
	       "a reserved field that is not 0 is EINVAL");
	test_unknown_calls(fd);
	for (i = 0; i < CALLS; i++) {
		uint8_t argument[256] = { 0 };

		if (calls[i].needs_context &&
		    (calls[i].request != VIANIC_IOC_SHUT_DOWN || can_shut_down(fd)))
			tap_ok(fails_with(fd, calls[i].request, argument, ENXIO),
			       "%s without a context is ENXIO", calls[i].name);
	}
	tap_ok(!ioctl(fd, VIANIC_IOC_OPEN_CONTEXT, &open_call) &&
	       open_call.status == VIANIC_STATUS_NOT_SUPPORTED, "another ABI version is refused");
	open_call.abi_version = VIANIC_ABI_VERSION;
	tap_ok(!ioctl(fd, VIANIC_IOC_OPEN_CONTEXT, &open_call) && !open_call.status &&
	       open_call.context != VIANIC_KERNEL_CONTEXT, "OPEN_CONTEXT");
	tap_ok(fails_with(fd, VIANIC_IOC_OPEN_CONTEXT, &open_call, EBUSY),
	       "a second context of a file is EBUSY");
	test_bad_pointers(fd);
	test_answers_undone(fd);
	test_shut_down(fd);
	close(fd);
	tap_ok(nothing_left(), "nothing is left after the calls");
}

static bool map_fails(int fd, size_t size, int protection, int flags, off_t offset, int error)
{
	void *address = mmap(NULL, size, protection, flags, fd, offset);

	if (address == MAP_FAILED)
		return errno == error;
	munmap(address, size);
	return false;
}

static void test_bounds_of_areas(struct context *ctx)
{
	const int both = PROT_READ | PROT_WRITE;
	const struct {
		const char *name;
		off_t offset;
		size_t size;
		int protection;
	} areas[] = {
		{ "Token Table", VIANIC_MMAP_TOKEN_TABLE, token_table_size(&ctx->info), both },
		{ "MCQ", VIANIC_MMAP_MCQ, mcq_size(&ctx->info), both },
		{ "NRA", VIANIC_MMAP_NRA, VIANIC_NRA_SIZE, both },
		{ "doorbell", VIANIC_MMAP_DOORBELL, PAGE, both },
		{ "registers", VIANIC_MMAP_REGISTERS, 2 * PAGE, PROT_READ },
	};
	size_t i;

	for (i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		off_t offset = areas[i].offset, end = offset + areas[i].size;
		int protection = areas[i].protection;

		tap_ok(map_fails(ctx->fd, areas[i].size + PAGE, protection, MAP_SHARED, offset, EINVAL) &&
		       map_fails(ctx->fd, PAGE, protection, MAP_SHARED, end, EINVAL) &&
		       map_fails(ctx->fd, 2 * PAGE, protection, MAP_SHARED, end - PAGE, EINVAL),
		       "no page behind the %s can be mapped", areas[i].name);
		tap_ok(map_fails(ctx->fd, PAGE, protection, MAP_PRIVATE, offset, EINVAL),
		       "the %s cannot be mapped privately", areas[i].name);
		/* EPERM is the kernel's own answer where /dev is mounted noexec. */
		tap_ok(map_fails(ctx->fd, PAGE, protection | PROT_EXEC, MAP_SHARED, offset, EINVAL) ||
		       map_fails(ctx->fd, PAGE, protection | PROT_EXEC, MAP_SHARED, offset, EPERM),
		       "the %s cannot be mapped executable", areas[i].name);
	}
	tap_ok(map_fails(ctx->fd, PAGE, PROT_READ, MAP_SHARED, 0x50000000, EINVAL) &&
	       map_fails(ctx->fd, PAGE, PROT_READ, MAP_SHARED, 0x7ffffffff000, EINVAL),
	       "nothing can be mapped where there is no area");
	tap_ok(map_fails(ctx->fd, PAGE, both, MAP_SHARED, VIANIC_MMAP_REGISTERS, EACCES) &&
	       mprotect((void *)ctx->registers, PAGE, both) == -1 && errno == EACCES,
	       "the registers cannot be written");
}

void test_mappings(void)
{
	int without_context = open(DEVICE, O_RDWR | O_CLOEXEC);
	struct context ctx, other;
	uint32_t handle;
	size_t i, dirty = 0;

	if (open_context(&ctx) || open_context(&other))
		tap_bail_out("no contexts");
	tap_ok(map_fails(without_context, PAGE, PROT_READ, MAP_SHARED, VIANIC_MMAP_MCQ, ENXIO) &&
	       map_fails(without_context, PAGE, PROT_WRITE, MAP_SHARED, VIANIC_MMAP_DOORBELL, ENXIO),
	       "a file without a context has no tables and no doorbell");
	close(without_context);
	test_bounds_of_areas(&ctx);
	for (i = 0; i < mcq_size(&ctx.info); i++)
		dirty += ctx.mcq[i] != 0;
	tap_is(dirty, 0, "a new MCQ is empty");
	ctx.nra[100] = 1;
	ctx.mcq[VIANIC_MCQ_ENTRIES] = 1;
	tap_ok(!other.nra[100] && !other.mcq[VIANIC_MCQ_ENTRIES],
	       "two contexts do not share their tables");
	ctx.nra[100] = 0;
	tap_ok(mremap(ctx.mcq, mcq_size(&ctx.info), mcq_size(&ctx.info) + PAGE, MREMAP_MAYMOVE) ==
	       MAP_FAILED, "a mapping cannot grow");
	tap_is(register_memory(ctx.fd, ctx.mcq, PAGE, 0, 0, &handle),
	       VIANIC_STATUS_INVALID_PARAMETER, "a mapping of the card cannot be registered");
	munmap(ctx.mcq + PAGE, PAGE);
	ctx.mcq[2 * PAGE] = 1;
	tap_is(ctx.mcq[2 * PAGE], 1, "a mapping with a hole goes on");
	close_context(&other);
	close(ctx.fd);
	tap_is(settled("contexts", 1), 1, "mappings keep a closed file's context");
	ctx.mcq[0] = 1;
	tap_ok(ctx.registers->magic == VIANIC_REGISTERS_MAGIC, "mappings of a closed file go on");
	unmap_context(&ctx);
	tap_ok(nothing_left(), "nothing is left after the mappings");
}

static void test_vi_attributes(int fd)
{
	const struct vianic_create_vi_call good = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY,
		.attributes.max_transfer_size = PAGE,
		.send_cq = VIANIC_NO_CQ,
		.receive_cq = VIANIC_NO_CQ,
	};
	static const uint16_t levels[] = { 0, 3, 8, 0xffff };
	struct vianic_create_vi_call call = good;
	uint32_t vi;
	size_t i;

	for (i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		call.attributes.reliability_level = levels[i];
		tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_RELIABILITY_LEVEL,
		       "no VI of reliability level %u", levels[i]);
	}
	call = good;
	call.attributes.max_transfer_size = UINT32_MAX;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_MTU, "no VI of any size");
	call = good;
	call.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_UNRELIABLE;
	call.attributes.flags = VIANIC_VI_RDMA_READ;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_RDMAREAD,
	       "no RDMA read without reliability");
	call = good;
	call.attributes.flags = 4;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_PARAMETER, "no unknown flags");
	call = good;
	call.ptag = 3;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_PTAG, "no VI of a missing ptag");
	call = good;
	call.send_cq = 3;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_PARAMETER, "no missing send CQ");
	call = good;
	call.receive_cq = VIANIC_MAX_CQ;
	tap_is(create_vi_with(fd, call, &vi), VIANIC_STATUS_INVALID_PARAMETER, "no CQ out of range");
}

void test_objects(void)
{
	static const uint32_t wild[] = { 77, VIANIC_MAX_VI, 0x10000, 0x80000000, UINT32_MAX };
	struct vianic_create_vi_call call = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_RECEPTION,
		.attributes.flags = VIANIC_VI_RDMA_WRITE | VIANIC_VI_RDMA_READ,
		.receive_cq = VIANIC_NO_CQ,
	};
	uint32_t cq = 0, ptag = 0, vi, count = 0;
	struct context ctx;
	size_t i;

	if (open_context(&ctx))
		tap_bail_out("no context");
	tap_is(object_call(ctx.fd, VIANIC_IOC_CREATE_PTAG, &ptag), 0, "CREATE_PTAG");
	tap_is(object_call(ctx.fd, VIANIC_IOC_CREATE_CQ, &cq), 0, "CREATE_CQ");
	call.ptag = ptag;
	call.send_cq = cq;
	tap_is(create_vi_with(ctx.fd, call, &vi), 0, "CREATE_VI");
	test_vi_attributes(ctx.fd);
	tap_is(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_CQ, cq), VIANIC_STATUS_ERROR_RESOURCE,
	       "a CQ in use stays");
	tap_is(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, ptag), VIANIC_STATUS_ERROR_RESOURCE,
	       "a ptag in use stays");
	tap_is(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, VIANIC_DEFAULT_PTAG),
	       VIANIC_STATUS_INVALID_PARAMETER, "the default ptag stays");
	for (i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
		tap_ok(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_CQ, wild[i]) ==
			       VIANIC_STATUS_INVALID_PARAMETER &&
		       object_call_on(ctx.fd, VIANIC_IOC_DESTROY_VI, wild[i]) ==
			       VIANIC_STATUS_INVALID_PARAMETER &&
		       object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, wild[i]) ==
			       VIANIC_STATUS_INVALID_PARAMETER &&
		       object_call_on(ctx.fd, VIANIC_IOC_DISCONNECT, wild[i]) ==
			       VIANIC_STATUS_INVALID_PARAMETER,
		       "there is no CQ, VI or ptag %u", wild[i]);
	tap_ok(!object_call_on(ctx.fd, VIANIC_IOC_DESTROY_VI, vi) &&
	       !object_call_on(ctx.fd, VIANIC_IOC_DESTROY_CQ, cq) &&
	       !object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, ptag), "objects out of use go");
	while (create_vi(ctx.fd, &vi) == 0)
		count++;
	tap_is(count, ctx.registers->max_vi, "as many VIs as the card promises");
	close_context(&ctx);
	tap_ok(nothing_left(), "nothing is left after the objects");
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "after-exec"))
		return after_exec(atoi(argv[2]));
	signal(SIGPIPE, SIG_IGN);
	/* A call that hangs ends the program. */
	alarm(TIME_LIMIT_S);
	test_calls();
	test_mappings();
	test_objects();
	test_memory();
	test_limits();
	test_attributes();
	test_connections();
	test_peers();
	test_transfers();
	test_processes();
	test_unbind();
	return tap_end();
}
