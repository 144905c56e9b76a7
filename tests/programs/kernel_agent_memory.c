/* Registered memory, and how much of everything there is. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

#define NOBODY 65534

static void test_ranges(int fd)
{
	uint8_t *pages = anonymous_pages(4), *constant = anonymous_pages(1);
	const struct {
		const char *what;
		const void *address;
		uint64_t length;
		uint32_t ptag, access;
		int status;
	} refused[] = {
		{ "no bytes", pages, 0, 0, 0, VIANIC_STATUS_INVALID_PARAMETER },
		{ "a length that wraps", pages, UINT64_MAX, 0, 0, VIANIC_STATUS_INVALID_PARAMETER },
		{ "more than there is", pages, 1UL << 60, 0, 0, VIANIC_STATUS_ERROR_RESOURCE },
		{ "a ptag that is missing", pages, 10, 9, 0, VIANIC_STATUS_INVALID_PTAG },
		{ "unknown access", pages, 10, 0, 4, VIANIC_STATUS_INVALID_PARAMETER },
		{ "NULL", NULL, 10, 0, 0, VIANIC_STATUS_INVALID_PARAMETER },
		{ "the kernel's memory", (void *)0xffff888000000000UL, PAGE, 0, 0,
		  VIANIC_STATUS_INVALID_PARAMETER },
		{ "memory that cannot be written", constant, 10, 0, 0,
		  VIANIC_STATUS_INVALID_PARAMETER },
		{ "half-mapped memory", pages, 4 * PAGE, 0, 0, VIANIC_STATUS_INVALID_PARAMETER },
		{ "unmapped memory", pages + 2 * PAGE, 10, 0, 0, VIANIC_STATUS_INVALID_PARAMETER },
	};
	uint32_t handle;
	size_t i;

	mprotect(constant, PAGE, PROT_READ);
	munmap(pages + 2 * PAGE, 2 * PAGE);
	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		tap_is(register_memory(fd, refused[i].address, refused[i].length, refused[i].ptag,
				       refused[i].access, &handle),
		       refused[i].status, "cannot be registered: %s", refused[i].what);
	tap_ok(counter("regions") == 0 && settled("pinned_pages", 0) == 0,
	       "a refused registration pins nothing");
	munmap(pages, 2 * PAGE);
	munmap(constant, PAGE);
}

void test_memory(void)
{
	uint8_t *memory = anonymous_pages(4);
	uint32_t ptag = 0, first, second;
	struct context ctx;

	if (open_context(&ctx))
		tap_bail_out("no context");
	object_call(ctx.fd, VIANIC_IOC_CREATE_PTAG, &ptag);
	tap_is(register_memory(ctx.fd, memory + 5, PAGE, ptag, VIANIC_ACCESS_RDMA_WRITE, &first), 0,
	       "an unaligned range can be registered");
	tap_ok(first != 0 && first != UINT32_MAX, "a handle is neither 0 nor all ones");
	tap_is(register_memory(ctx.fd, memory + 5, PAGE, 0, VIANIC_ACCESS_RDMA_READ, &second), 0,
	       "a range can be registered twice");
	tap_ok(first != second, "each time with a handle of its own");
	tap_ok(counter("regions") == 2 && counter("pinned_pages") == 4, "both are counted");
	tap_is(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, ptag), VIANIC_STATUS_ERROR_RESOURCE,
	       "a ptag of registered memory stays");
	tap_is(deregister_memory(ctx.fd, memory, first), VIANIC_STATUS_INVALID_PARAMETER,
	       "another address does not deregister");
	tap_is(deregister_memory(ctx.fd, memory + 5, first ^ 0x00100000),
	       VIANIC_STATUS_INVALID_PARAMETER, "another generation does not deregister");
	tap_is(deregister_memory(ctx.fd, memory + 5, UINT32_MAX), VIANIC_STATUS_INVALID_PARAMETER,
	       "a wild handle does not deregister");
	tap_ok(!deregister_memory(ctx.fd, memory + 5, first) &&
	       !deregister_memory(ctx.fd, memory + 5, second), "both can be deregistered");
	tap_is(deregister_memory(ctx.fd, memory + 5, first), VIANIC_STATUS_INVALID_PARAMETER,
	       "but not twice");
	tap_ok(settled("pending_unpins", 0) == 0 && counter("pinned_pages") == 0,
	       "deregistered pages are unpinned, though the card sleeps");
	tap_is(object_call_on(ctx.fd, VIANIC_IOC_DESTROY_PTAG, ptag), 0, "the ptag goes now");
	test_ranges(ctx.fd);

	tap_is(register_memory(ctx.fd, memory, 4 * PAGE, 0, 0, &first), 0, "register four pages");
	munmap(memory, 4 * PAGE);
	tap_is(counter("pinned_pages"), 4, "unmapped pages stay pinned");
	close_context(&ctx);
	tap_ok(nothing_left(), "closing the file unpins them");
}

static void test_contexts(void)
{
	struct context contexts[VIANIC_MAX_CONTEXTS + 1];
	int status = 0, count = 0, i;

	while (count <= VIANIC_MAX_CONTEXTS && !(status = open_context(&contexts[count])))
		count++;
	tap_is(count, VIANIC_MAX_CONTEXTS - 1, "as many contexts as there are beside the kernel's");
	tap_is(status, VIANIC_STATUS_ERROR_RESOURCE, "one more is refused");
	for (i = 0; i < count; i++)
		close_context(&contexts[i]);
	tap_ok(nothing_left(), "all contexts can be closed");
}

/* More at once than a chunk of the MRT holds, and more deregistrations than the MDL. */
static void test_regions(void)
{
	const uint32_t regions = VIANIC_MRT_CHUNK_ENTRIES + 500, half = regions / 2;
	uint32_t *handles = calloc(regions, sizeof(*handles)), done, i;
	uint8_t *memory = anonymous_pages(regions);
	struct context ctx;

	if (!handles || open_context(&ctx))
		tap_bail_out("no context");
	for (done = 0; done < regions; done++)
		if (register_memory(ctx.fd, memory + done * PAGE, PAGE, 0, 0, &handles[done]))
			break;
	tap_is(done, regions, "more regions than a chunk of the MRT holds");
	tap_is(counter("regions"), regions, "all are counted");
	for (i = 0; i < half; i++)
		if (deregister_memory(ctx.fd, memory + i * PAGE, handles[i]))
			break;
	tap_is(i, half, "half of them deregistered");
	for (i = 0; i < 2 * VIANIC_MDL_ENTRIES; i++)
		if (register_memory(ctx.fd, memory, PAGE, 0, 0, &handles[0]) ||
		    deregister_memory(ctx.fd, memory, handles[0]))
			break;
	tap_is(i, 2 * VIANIC_MDL_ENTRIES, "more deregistrations than the MDL holds");
	close_context(&ctx);
	tap_ok(nothing_left(), "the rest goes with the file");
	munmap(memory, regions * PAGE);
	free(handles);
}

/* As a user who may lock 1 MiB. The exit code is the number of what failed. */
static int limited_user(void)
{
	const struct rlimit limit = { .rlim_cur = 1 << 20, .rlim_max = 1 << 20 };
	uint8_t *memory = anonymous_pages(1024);
	struct vianic_nic_info info = { 0 };
	uint32_t handle, other;
	struct context ctx;
	int i;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(NOBODY) || setuid(NOBODY))
		return 1;
	if (open_context(&ctx))
		return 2;
	if (ioctl(ctx.fd, VIANIC_IOC_QUERY_NIC, &info) || info.max_register_bytes != 1 << 20)
		return 3;
	if (register_memory(ctx.fd, memory, (1 << 20) + 1, 0, 0, &handle) !=
	    VIANIC_STATUS_ERROR_RESOURCE)
		return 4;
	if (register_memory(ctx.fd, memory, 1 << 20, 0, 0, &handle))
		return 5;
	if (register_memory(ctx.fd, memory, 1, 0, 0, &other) != VIANIC_STATUS_ERROR_RESOURCE)
		return 6;
	for (i = 0; i < 50; i++)
		if (deregister_memory(ctx.fd, memory, handle) ||
		    register_memory(ctx.fd, memory, 1 << 20, 0, 0, &handle))
			return 7;
	return 0;
}

void test_limits(void)
{
	int status = -1;
	pid_t pid;

	test_contexts();
	test_regions();
	pid = fork();
	if (pid == 0)
		_exit(limited_user());
	waitpid(pid, &status, 0);
	tap_is(status, 0, "RLIMIT_MEMLOCK bounds what a user registers");
	tap_ok(nothing_left(), "nothing is left after the limits");
}
