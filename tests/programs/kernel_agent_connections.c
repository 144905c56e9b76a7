/* Waits, connections, and messages between two contexts. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

static void ignore(int signal)
{
	(void)signal;
}

/* Signals a thread until it says that its wait has ended. */
struct interruptee {
	pthread_t thread;
	volatile bool ended;
};

static void *interrupt(void *argument)
{
	struct interruptee *interruptee = argument;

	while (!interruptee->ended) {
		pthread_kill(interruptee->thread, SIGUSR1);
		usleep(10000);
	}
	return NULL;
}

static void test_waits(struct context *ctx)
{
	const struct sigaction action = { .sa_handler = ignore };
	struct interruptee self = { .thread = pthread_self() };
	uint32_t seen = 0;
	pthread_t thread;

	tap_is(wait_for_word(ctx->fd, VIANIC_NRA_WORDS, &seen, 0), VIANIC_STATUS_INVALID_PARAMETER,
	       "there is no word behind the NRA to wait for");
	tap_is(wait_for_word(ctx->fd, UINT32_MAX, &seen, 0), VIANIC_STATUS_INVALID_PARAMETER,
	       "there is no last word to wait for");
	tap_is(wait_for_word(ctx->fd, 0, &seen, 0), VIANIC_STATUS_TIMEOUT, "WAIT without patience");
	tap_is(wait_for_word(ctx->fd, 0, &seen, 100), VIANIC_STATUS_TIMEOUT, "WAIT for 100 ms");
	seen = 7;
	tap_ok(!wait_for_word(ctx->fd, 0, &seen, VIANIC_INFINITE_MS) && seen == 0,
	       "WAIT for what has been notified ends at once");
	tap_is(connect_wait(ctx->fd, "x", 0, NULL), VIANIC_STATUS_TIMEOUT,
	       "CONNECT_WAIT without patience");
	tap_is(connect_wait(ctx->fd, "x", 100, NULL), VIANIC_STATUS_TIMEOUT,
	       "CONNECT_WAIT for 100 ms");
	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, interrupt, &self);
	tap_is(wait_for_word(ctx->fd, 5, &seen, VIANIC_INFINITE_MS), -EINTR,
	       "a signal ends WAIT");
	tap_is(connect_wait(ctx->fd, "x", VIANIC_INFINITE_MS, NULL), -EINTR,
	       "a signal ends CONNECT_WAIT");
	self.ended = true;
	pthread_join(thread, NULL);
}

static void test_bad_requests(struct context *ctx, uint32_t vi)
{
	struct vianic_connect_request call = { .timeout_ms = 1000, .vi = vi };

	tap_is(connect_request(ctx->fd, vi, "nobody", 1000), VIANIC_STATUS_NO_MATCH,
	       "nobody listens");
	tap_is(connect_request(ctx->fd, vi, "nobody", 0), VIANIC_STATUS_INVALID_PARAMETER,
	       "a request needs time");
	tap_is(connect_request(ctx->fd, 99, "nobody", 10), VIANIC_STATUS_INVALID_PARAMETER,
	       "a request needs a VI");
	call.remote.host_len = VIANIC_NIC_ADDRESS_LEN;
	call.remote.host[0] = 2;
	call.remote.host[5] = 99;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_CONNECT_REQUEST, &call) &&
	       call.status == VIANIC_STATUS_NOT_REACHABLE, "no NIC has that address");
	call.remote.host_len = VIANIC_NIC_ADDRESS_LEN - 1;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_CONNECT_REQUEST, &call) &&
	       call.status == VIANIC_STATUS_INVALID_PARAMETER, "an address has its length");
	call.remote.host_len = 0;
	call.remote.discriminator_len = UINT16_MAX;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_CONNECT_REQUEST, &call) &&
	       call.status == VIANIC_STATUS_INVALID_PARAMETER, "a discriminator has its bounds");
	tap_ok(connect_answer(ctx->fd, VIANIC_IOC_CONNECT_ACCEPT, 12345, vi) ==
		       VIANIC_STATUS_INVALID_PARAMETER &&
	       connect_answer(ctx->fd, VIANIC_IOC_CONNECT_REJECT, 12345, vi) ==
		       VIANIC_STATUS_INVALID_PARAMETER, "there is no such request to answer");
}

static void test_discovery(struct context *ctx)
{
	struct vianic_discover_nics call = { 0 };
	const struct vianic_nic_list *list = &call.list;
	const void *own = (const void *)ctx->registers->nic_address;
	uint32_t i, found = 0;

	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_DISCOVER, &call) && !call.status && list->total &&
	       list->count == list->total, "DISCOVER");
	for (i = 0; i < list->count && i < VIANIC_NIC_LIST_ENTRIES; i++)
		found += !memcmp(list->nics[i].address, own, VIANIC_NIC_ADDRESS_LEN);
	tap_is(found, 1, "it finds this NIC");
	call.first = UINT32_MAX;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_DISCOVER, &call) && !call.status && list->total &&
	       !list->count, "and none behind the last");
}

struct listener {
	struct context *ctx;
	const char *name;
	bool reject;
	int status;
	struct vianic_connect_wait request;
};

static void *listen_once(void *argument)
{
	struct listener *listener = argument;
	int fd = listener->ctx->fd;

	listener->status = connect_wait(fd, listener->name, 30000, &listener->request);
	if (!listener->status && listener->reject)
		listener->status = connect_answer(fd, VIANIC_IOC_CONNECT_REJECT,
						  listener->request.connection, 0);
	return NULL;
}

static void test_unanswered(struct context *ctx, uint32_t vi, struct context *peer, uint32_t peer_vi)
{
	struct listener listener = { .ctx = peer, .name = "mute" };
	const struct vianic_net_address *remote = &listener.request.remote;
	pthread_t thread;

	pthread_create(&thread, NULL, listen_once, &listener);
	tap_is(connect_when_ready(ctx->fd, vi, listener.name, 300), VIANIC_STATUS_TIMEOUT,
	       "a request that nobody answers times out");
	pthread_join(thread, NULL);
	tap_is(listener.status, 0, "though it was seen");
	tap_ok(remote->host_len == VIANIC_NIC_ADDRESS_LEN &&
	       !memcmp(remote->host, (const void *)ctx->registers->nic_address,
		       VIANIC_NIC_ADDRESS_LEN), "and said who asks");
	tap_is(connect_answer(peer->fd, VIANIC_IOC_CONNECT_ACCEPT, listener.request.connection,
			      peer_vi), VIANIC_STATUS_TIMEOUT, "it cannot be accepted any more");

	listener = (struct listener){ .ctx = peer, .name = "rude", .reject = true };
	pthread_create(&thread, NULL, listen_once, &listener);
	tap_is(connect_when_ready(ctx->fd, vi, listener.name, 30000), VIANIC_STATUS_REJECT,
	       "a request that is rejected");
	pthread_join(thread, NULL);
	tap_is(listener.status, 0, "CONNECT_REJECT");
}

void test_connections(void)
{
	struct descriptor *receive = anonymous_pages(1);
	struct context ctx, peer;
	uint32_t vi, peer_vi, handle;

	if (open_context(&ctx) || open_context(&peer) || create_vi(ctx.fd, &vi) ||
	    create_vi(peer.fd, &peer_vi))
		tap_bail_out("no VIs");
	test_waits(&peer);
	test_bad_requests(&ctx, vi);
	test_discovery(&ctx);
	test_unanswered(&ctx, vi, &peer, peer_vi);
	tap_is(connect_pair(&ctx, vi, &peer, peer_vi, "peer"), 0, "two contexts are connected");
	tap_is(register_memory(peer.fd, receive, PAGE, 0, 0, &handle), 0, "memory of a receive");
	post(&peer, peer_vi, true, receive, handle);
	close_context(&ctx);
	tap_ok(!wait_for_descriptor(&peer, peer_vi, true, receive) &&
	       receive->status & STATUS_FLUSHED, "a peer's end flushes the receives");
	close_context(&peer);
	tap_ok(nothing_left(), "nothing is left after the connections");
	munmap(receive, PAGE);
}

/* One message of @length bytes from and to odd addresses; then one to memory that is not registered any more. */
static void test_transfer(struct context *ctx, struct context *peer, size_t length)
{
	size_t pages = 2 + length / PAGE, i;
	uint8_t *source = anonymous_pages(pages), *target = anonymous_pages(pages);
	struct descriptor *send = anonymous_pages(1), *receive = anonymous_pages(1);
	uint32_t vi, peer_vi, handles[4];

	for (i = 0; i < pages * PAGE; i++)
		source[i] = 1 + i * 7 % 251;
	if (create_vi(ctx->fd, &vi) || create_vi(peer->fd, &peer_vi) ||
	    connect_pair(ctx, vi, peer, peer_vi, "transfer") ||
	    register_memory(ctx->fd, source + 11, length, 0, 0, &handles[0]) ||
	    register_memory(ctx->fd, send, PAGE, 0, 0, &handles[1]) ||
	    register_memory(peer->fd, target + 77, length, 0, 0, &handles[2]) ||
	    register_memory(peer->fd, receive, PAGE, 0, 0, &handles[3]))
		tap_bail_out("no connection for %zu bytes", length);
	*receive = (struct descriptor){
		.segments = 1,
		.length = length,
		.segment[0] = { (uintptr_t)target + 77, handles[2], length },
	};
	*send = (struct descriptor){
		.segments = 1,
		.control = CONTROL_IMMEDIATE,
		.immediate = 0x1234,
		.length = length,
		.segment[0] = { (uintptr_t)source + 11, handles[0], length },
	};
	post(peer, peer_vi, true, receive, handles[3]);
	post(ctx, vi, false, send, handles[1]);
	tap_ok(!wait_for_descriptor(peer, peer_vi, true, receive) &&
	       !(receive->status & STATUS_ERRORS) && receive->length == length &&
	       receive->immediate == 0x1234, "%zu bytes are received", length);
	tap_ok(!wait_for_descriptor(ctx, vi, false, send) && !(send->status & STATUS_ERRORS),
	       "%zu bytes are sent", length);
	tap_ok(!memcmp(source + 11, target + 77, length) && !target[76] && !target[77 + length],
	       "exactly %zu bytes are copied", length);

	tap_is(deregister_memory(peer->fd, target + 77, handles[2]), 0, "deregister the target");
	post(peer, peer_vi, true, receive, handles[3]);
	post(ctx, vi, false, send, handles[1]);
	tap_ok(!wait_for_descriptor(peer, peer_vi, true, receive) && receive->status & STATUS_ERRORS,
	       "a message to deregistered memory is an error");
	tap_ok(!object_call_on(ctx->fd, VIANIC_IOC_DISCONNECT, vi) &&
	       !object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, vi) &&
	       !object_call_on(peer->fd, VIANIC_IOC_DISCONNECT, peer_vi) &&
	       !object_call_on(peer->fd, VIANIC_IOC_DESTROY_VI, peer_vi),
	       "disconnect and destroy the VIs");
	tap_ok(!deregister_memory(ctx->fd, source + 11, handles[0]) &&
	       !deregister_memory(ctx->fd, send, handles[1]) &&
	       !deregister_memory(peer->fd, receive, handles[3]), "deregister the rest");
	munmap(source, pages * PAGE);
	munmap(target, pages * PAGE);
	munmap(send, PAGE);
	munmap(receive, PAGE);
}

void test_transfers(void)
{
	static const size_t lengths[] = { 1, 64, 5000, 100000, 1 << 20 };
	struct context ctx, peer;
	size_t i;

	if (open_context(&ctx) || open_context(&peer))
		tap_bail_out("no contexts");
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		test_transfer(&ctx, &peer, lengths[i]);
	test_transfer(&ctx, &ctx, 30000);
	tap_ok(settled("pending_unpins", 0) == 0 && settled("pinned_pages", 0) == 0,
	       "no page is pinned after the messages");
	close_context(&ctx);
	close_context(&peer);
	tap_ok(nothing_left(), "nothing is left after the messages");
}
