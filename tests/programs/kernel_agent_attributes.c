/* Other attributes for regions and VIs. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel_agent.h"
#include "tap.h"

#define CONTROL_RDMA_WRITE 0x0001
#define BOTH (VIANIC_ACCESS_RDMA_WRITE | VIANIC_ACCESS_RDMA_READ)

static void test_region(int fd)
{
	uint8_t *memory = anonymous_pages(2);
	uint32_t ptag = 0, handle;

	object_call(fd, VIANIC_IOC_CREATE_PTAG, &ptag);
	if (register_memory(fd, memory + 7, PAGE, 0, 0, &handle))
		tap_bail_out("no region");
	tap_is(set_memory_attributes(fd, memory + 7, handle, ptag, BOTH), 0,
	       "a region gets other attributes");
	tap_is(set_memory_attributes(fd, memory + 7 + PAGE - 1, handle, ptag, 0), 0,
	       "by any address in it");
	tap_ok(set_memory_attributes(fd, memory + 6, handle, ptag, 0) ==
		       VIANIC_STATUS_INVALID_PARAMETER &&
	       set_memory_attributes(fd, memory + 7 + PAGE, handle, ptag, 0) ==
		       VIANIC_STATUS_INVALID_PARAMETER &&
	       set_memory_attributes(fd, memory + 7, handle ^ 0x00100000, ptag, 0) ==
		       VIANIC_STATUS_INVALID_PARAMETER &&
	       set_memory_attributes(fd, memory + 7, UINT32_MAX, ptag, 0) ==
		       VIANIC_STATUS_INVALID_PARAMETER, "but by no other address or handle");
	tap_is(set_memory_attributes(fd, memory + 7, handle, ptag, 4), VIANIC_STATUS_INVALID_PARAMETER,
	       "no unknown access");
	tap_is(set_memory_attributes(fd, memory + 7, handle, ptag + 1, 0), VIANIC_STATUS_INVALID_PTAG,
	       "no unknown ptag");
	tap_is(object_call_on(fd, VIANIC_IOC_DESTROY_PTAG, ptag), VIANIC_STATUS_ERROR_RESOURCE,
	       "the new ptag is in use");
	tap_is(set_memory_attributes(fd, memory + 7, handle, 0, 0), 0, "back to no ptag");
	tap_is(object_call_on(fd, VIANIC_IOC_DESTROY_PTAG, ptag), 0, "the ptag is free again");
	tap_is(deregister_memory(fd, memory + 7, handle), 0, "a changed region is deregistered");
	tap_is(set_memory_attributes(fd, memory + 7, handle, 0, 0), VIANIC_STATUS_INVALID_PARAMETER,
	       "and then is none");
	tap_is(settled("pinned_pages", 0), 0, "its pages are unpinned");
	munmap(memory, 2 * PAGE);
}

static void test_vi(int fd)
{
	struct vianic_set_vi_attributes call = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_RECEPTION,
		.attributes.flags = VIANIC_VI_RDMA_READ,
		.attributes.max_transfer_size = PAGE,
	}, bad;
	uint32_t first = 0, second = 0, vi;

	object_call(fd, VIANIC_IOC_CREATE_PTAG, &first);
	object_call(fd, VIANIC_IOC_CREATE_PTAG, &second);
	if (create_vi(fd, &vi))
		tap_bail_out("no VI");
	call.vi = vi;
	call.ptag = first;
	tap_is(set_vi_attributes(fd, call), 0, "an Idle VI gets other attributes");
	bad = call;
	bad.ptag = second + 1;
	tap_is(set_vi_attributes(fd, bad), VIANIC_STATUS_INVALID_PTAG, "no unknown ptag for a VI");
	bad.ptag = second;
	bad.attributes.reliability_level = 3;
	tap_is(set_vi_attributes(fd, bad), VIANIC_STATUS_INVALID_RELIABILITY_LEVEL,
	       "no two levels at once");
	bad.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_UNRELIABLE;
	tap_is(set_vi_attributes(fd, bad), VIANIC_STATUS_INVALID_RDMAREAD,
	       "no RDMA read without reliability for a VI that is there");
	bad = call;
	bad.attributes.max_transfer_size = UINT32_MAX;
	tap_is(set_vi_attributes(fd, bad), VIANIC_STATUS_INVALID_MTU, "nor any size");
	bad = call;
	bad.vi = 99;
	tap_is(set_vi_attributes(fd, bad), VIANIC_STATUS_INVALID_PARAMETER, "nor another VI's");
	bad = call;
	bad.reserved = 1;
	tap_is(set_vi_attributes(fd, bad), -EINVAL, "nor with what is reserved");
	tap_ok(object_call_on(fd, VIANIC_IOC_DESTROY_PTAG, first) == VIANIC_STATUS_ERROR_RESOURCE &&
	       !object_call_on(fd, VIANIC_IOC_DESTROY_PTAG, second),
	       "what was refused has changed nothing");
	tap_ok(!object_call_on(fd, VIANIC_IOC_DESTROY_VI, vi) &&
	       !object_call_on(fd, VIANIC_IOC_DESTROY_PTAG, first), "the ptag goes after the VI");
}

/* Writes 8 bytes to the peer's @target by RDMA; the descriptor's status. */
static uint32_t rdma_write(struct context *ctx, uint32_t vi, uint8_t *page, uint32_t handle,
			   const void *target, uint32_t target_handle)
{
	struct descriptor *send = (struct descriptor *)page;

	*send = (struct descriptor){
		.segments = 2,
		.control = CONTROL_RDMA_WRITE,
		.length = 8,
		.segment[0] = { (uintptr_t)target, target_handle, 8 },
		.segment[1] = { (uintptr_t)page + 512, handle, 8 },
	};
	post(ctx, vi, false, send, handle);
	if (wait_for_descriptor(ctx, vi, false, send))
		tap_bail_out("no end of an RDMA write");
	return send->status;
}

/* The card goes by the attributes that the last call gave, whatever it had in its shadow MRT. */
static void test_card(struct context *ctx, struct context *peer)
{
	struct vianic_set_vi_attributes open = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY,
		.attributes.flags = VIANIC_VI_RDMA_WRITE,
		.attributes.max_transfer_size = 1 << 20,
	};
	uint8_t *page = anonymous_pages(1), *target = anonymous_pages(1);
	uint32_t vi, peer_vi, handle, target_handle;
	int i, written = 0;

	if (create_vi(ctx->fd, &vi) || create_vi(peer->fd, &peer_vi) ||
	    register_memory(ctx->fd, page, PAGE, 0, 0, &handle) ||
	    register_memory(peer->fd, target, PAGE, 0, 0, &target_handle))
		tap_bail_out("no VIs");
	open.vi = peer_vi;
	tap_is(set_vi_attributes(peer->fd, open), 0, "a VI lets its peer write");
	if (connect_pair(ctx, vi, peer, peer_vi, "attributes"))
		tap_bail_out("no connection");
	tap_is(set_vi_attributes(peer->fd, open), VIANIC_STATUS_INVALID_STATE,
	       "a connected VI keeps its attributes");
	for (i = 0; i < 100; i++) {
		set_memory_attributes(peer->fd, target, target_handle, 0,
				      i % 2 ? BOTH : VIANIC_ACCESS_RDMA_WRITE);
		written += !(rdma_write(ctx, vi, page, handle, target, target_handle) &
			     STATUS_ERRORS);
	}
	tap_is(written, 100, "the peer writes a region that was opened for it");
	tap_is(set_memory_attributes(peer->fd, target, target_handle, 0, VIANIC_ACCESS_RDMA_READ), 0,
	       "the region is closed");
	tap_ok(rdma_write(ctx, vi, page, handle, target, target_handle) & STATUS_ERRORS,
	       "and the next write is refused");
	munmap(page, PAGE);
	munmap(target, PAGE);
}

void test_attributes(void)
{
	struct context ctx, peer;

	if (open_context(&ctx) || open_context(&peer))
		tap_bail_out("no contexts");
	test_region(ctx.fd);
	test_vi(ctx.fd);
	test_card(&ctx, &peer);
	close_context(&ctx);
	close_context(&peer);
	tap_ok(nothing_left(), "nothing is left after the changes");
}
