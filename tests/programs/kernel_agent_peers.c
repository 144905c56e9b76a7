/* Connections between equals. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

#define LONG_MS 30000
#define STORM 256

static uint32_t new_vi(struct context *ctx)
{
	uint32_t vi;

	if (create_vi(ctx->fd, &vi))
		tap_bail_out("no VI");
	return vi;
}

static void test_meeting(struct context *ctx, struct context *peer)
{
	uint32_t vi = new_vi(ctx), peer_vi = new_vi(peer);
	struct vianic_vi_attributes attributes = { 0 };

	tap_is(peer_wait(ctx->fd, vi, 0, NULL), VIANIC_STATUS_INVALID_STATE,
	       "without an attempt there is nothing to wait for");
	tap_is(peer_request(ctx->fd, vi, "meet", LONG_MS), 0, "CONNECT_PEER_REQUEST");
	tap_is(peer_wait(ctx->fd, vi, 0, NULL), VIANIC_STATUS_NOT_DONE, "nobody has come yet");
	tap_is(peer_wait(ctx->fd, vi, 50, NULL), VIANIC_STATUS_NOT_DONE, "nor after 50 ms");
	tap_is(peer_request(ctx->fd, vi, "meet", LONG_MS), VIANIC_STATUS_INVALID_STATE,
	       "a VI makes one attempt at a time");
	tap_is(peer_request(peer->fd, peer_vi, "meet", LONG_MS), 0, "the partner asks");
	tap_ok(!peer_wait(ctx->fd, vi, LONG_MS, &attributes) &&
	       attributes.max_transfer_size == 1 << 20, "they meet");
	tap_is(peer_wait(peer->fd, peer_vi, LONG_MS, NULL), 0, "at both ends");
	tap_is(peer_wait(ctx->fd, vi, 0, NULL), VIANIC_STATUS_INVALID_STATE, "that is told once");
	tap_ok(!object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, vi) &&
	       !object_call_on(peer->fd, VIANIC_IOC_DISCONNECT, peer_vi) &&
	       !object_call_on(peer->fd, VIANIC_IOC_DESTROY_VI, peer_vi),
	       "they part");
}

static void test_bad_requests(struct context *ctx)
{
	struct vianic_connect_request call = { .timeout_ms = LONG_MS, .vi = new_vi(ctx) };
	struct vianic_connect_peer_wait *wait = anonymous_pages(1);

	tap_ok(peer_request(ctx->fd, call.vi, "x", 0) == VIANIC_STATUS_INVALID_PARAMETER &&
	       peer_request(ctx->fd, 99, "x", 10) == VIANIC_STATUS_INVALID_PARAMETER &&
	       peer_wait(ctx->fd, 99, 0, NULL) == VIANIC_STATUS_INVALID_PARAMETER,
	       "an attempt needs time and a VI");
	call.remote.host_len = VIANIC_NIC_ADDRESS_LEN;
	call.remote.host[0] = 2;
	call.remote.host[5] = 99;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_CONNECT_PEER_REQUEST, &call) && !call.status &&
	       peer_wait(ctx->fd, call.vi, LONG_MS, NULL) == VIANIC_STATUS_NOT_REACHABLE,
	       "no peer has that address");
	call.local.discriminator_len = UINT16_MAX;
	tap_ok(!ioctl(ctx->fd, VIANIC_IOC_CONNECT_PEER_REQUEST, &call) &&
	       call.status == VIANIC_STATUS_INVALID_PARAMETER, "a peer's discriminator has its bounds");

	/* What became of an attempt is lost if it cannot be told: the VI is as if it had been disconnected. */
	peer_request(ctx->fd, call.vi, "untold", 1);
	wait->vi = call.vi;
	wait->timeout_ms = LONG_MS;
	mprotect(wait, PAGE, PROT_READ);
	tap_ok(ioctl(ctx->fd, VIANIC_IOC_CONNECT_PEER_WAIT, wait) == -1 && errno == EFAULT &&
	       peer_wait(ctx->fd, call.vi, 0, NULL) == VIANIC_STATUS_INVALID_STATE,
	       "an outcome that cannot be told is over");
	munmap(wait, PAGE);
	object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, call.vi);
}

static void test_ends(struct context *ctx, struct context *peer)
{
	uint32_t vi = new_vi(ctx), peer_vi = new_vi(peer), later = new_vi(ctx), other;
	struct vianic_create_vi_call odd = {
		.attributes.reliability_level = VIANIC_RELIABILITY_LEVEL_UNRELIABLE,
		.attributes.max_transfer_size = 1 << 20,
		.send_cq = VIANIC_NO_CQ,
		.receive_cq = VIANIC_NO_CQ,
	};

	peer_request(ctx->fd, vi, "late", 100);
	tap_is(peer_wait(ctx->fd, vi, LONG_MS, NULL), VIANIC_STATUS_TIMEOUT,
	       "an attempt ends with its time");
	peer_request(ctx->fd, vi, "late", 1);
	peer_request(ctx->fd, later, "later", 100);
	peer_wait(ctx->fd, later, LONG_MS, NULL);
	peer_request(peer->fd, peer_vi, "late", 100);
	tap_ok(peer_wait(ctx->fd, vi, 0, NULL) == VIANIC_STATUS_TIMEOUT &&
	       peer_wait(peer->fd, peer_vi, LONG_MS, NULL) == VIANIC_STATUS_TIMEOUT,
	       "though nobody waits for it: who comes later finds nobody");

	if (create_vi_with(ctx->fd, odd, &other))
		tap_bail_out("no VI");
	peer_request(ctx->fd, other, "odd", LONG_MS);
	peer_request(peer->fd, peer_vi, "odd", LONG_MS);
	tap_ok(peer_wait(ctx->fd, other, LONG_MS, NULL) == VIANIC_STATUS_INVALID_RELIABILITY_LEVEL &&
	       peer_wait(peer->fd, peer_vi, LONG_MS, NULL) == VIANIC_STATUS_INVALID_RELIABILITY_LEVEL,
	       "a mismatch is told at both ends");

	peer_request(ctx->fd, vi, "gone", VIANIC_INFINITE_MS);
	peer_request(ctx->fd, other, "gone too", LONG_MS);
	tap_ok(!object_call_on(ctx->fd, VIANIC_IOC_DISCONNECT, vi) &&
	       peer_wait(ctx->fd, vi, 0, NULL) == VIANIC_STATUS_INVALID_STATE &&
	       !object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, other) &&
	       peer_wait(ctx->fd, other, 0, NULL) == VIANIC_STATUS_INVALID_PARAMETER,
	       "an attempt ends with the VI's disconnection, and with the VI");
	peer_request(peer->fd, peer_vi, "gone", 100);
	tap_is(peer_wait(peer->fd, peer_vi, LONG_MS, NULL), VIANIC_STATUS_TIMEOUT,
	       "and nobody meets it afterwards");
	object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, vi);
	object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, later);
	object_call_on(peer->fd, VIANIC_IOC_DESTROY_VI, peer_vi);
}

struct waiter {
	int fd;
	uint32_t vi;
	int status;
};

static void *wait_long(void *argument)
{
	struct waiter *waiter = argument;

	waiter->status = peer_wait(waiter->fd, waiter->vi, VIANIC_INFINITE_MS, NULL);
	return NULL;
}

static void test_waiters(struct context *ctx, struct context *peer)
{
	uint32_t vi = new_vi(ctx), peer_vi = new_vi(peer);
	struct waiter waiters[3];
	pthread_t threads[3];
	int i, told = 0, over = 0;

	peer_request(ctx->fd, vi, "many", VIANIC_INFINITE_MS);
	for (i = 0; i < 3; i++) {
		waiters[i] = (struct waiter){ .fd = ctx->fd, .vi = vi };
		pthread_create(&threads[i], NULL, wait_long, &waiters[i]);
	}
	peer_request(peer->fd, peer_vi, "many", LONG_MS);
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		told += waiters[i].status == 0;
		over += waiters[i].status == VIANIC_STATUS_INVALID_STATE;
	}
	tap_ok(told == 1 && over == 2, "of three that wait one is told, and all end");
	peer_wait(peer->fd, peer_vi, LONG_MS, NULL);
	object_call_on(ctx->fd, VIANIC_IOC_DESTROY_VI, vi);
	object_call_on(peer->fd, VIANIC_IOC_DESTROY_VI, peer_vi);
}

/* All at once, each with one other, in both orders. */
static void test_storm(struct context *ctx, struct context *peer)
{
	static uint32_t vis[2][STORM];
	struct context *sides[2] = { ctx, peer };
	char name[16];
	int i, met = 0, ended = 0;

	for (i = 0; i < 2 * STORM; i++)
		vis[i % 2][i / 2] = new_vi(sides[i % 2]);
	for (i = 0; i < 2 * STORM; i++) {
		/* One side from the first to the last, the other the other way round. */
		int side = i % 2, number = side ? STORM - 1 - i / 2 : i / 2;

		snprintf(name, sizeof(name), "storm %d", number);
		if (peer_request(sides[side]->fd, vis[side][number], name, LONG_MS))
			tap_bail_out("no attempt %d", i);
	}
	for (i = 0; i < 2 * STORM; i++)
		met += !peer_wait(sides[i % 2]->fd, vis[i % 2][i / 2], LONG_MS, NULL);
	tap_is(met, 2 * STORM, "%d pairs meet at once", STORM);
	for (i = 0; i < 2 * STORM; i++) {
		int fd = sides[i % 2]->fd;

		ended += !object_call_on(fd, VIANIC_IOC_DISCONNECT, vis[i % 2][i / 2]) &&
			 !peer_request(fd, vis[i % 2][i / 2], i % 2 ? "one" : "other", 50);
	}
	for (i = 0; i < 2 * STORM; i++)
		ended += peer_wait(sides[i % 2]->fd, vis[i % 2][i / 2], LONG_MS, NULL) == 0;
	tap_is(ended, 4 * STORM, "as many ask for whom they find, whoever it is");
}

/* Asks for a peer, and sleeps in the call or not, until it is killed. */
static void be_killed(int started, bool sleeps)
{
	struct context ctx;
	uint32_t vi;

	if (open_context(&ctx) || create_vi(ctx.fd, &vi) ||
	    peer_request(ctx.fd, vi, "killed", VIANIC_INFINITE_MS) || write(started, "", 1) != 1)
		_exit(1);
	if (sleeps)
		peer_wait(ctx.fd, vi, VIANIC_INFINITE_MS, NULL);
	for (;;)
		pause();
}

static void test_killed(bool sleeps)
{
	struct context ctx;
	int started[2], status;
	uint32_t vi;
	char byte;
	pid_t pid;

	if (pipe2(started, O_CLOEXEC))
		tap_bail_out("no pipe");
	pid = fork();
	if (pid == 0)
		be_killed(started[1], sleeps);
	close(started[1]);
	if (read(started[0], &byte, 1) != 1)
		tap_bail_out("the victim did not start");
	close(started[0]);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	tap_ok(nothing_left(), "a killed process leaves no attempt behind");
	if (open_context(&ctx))
		tap_bail_out("no context");
	vi = new_vi(&ctx);
	peer_request(ctx.fd, vi, "killed", 100);
	tap_is(peer_wait(ctx.fd, vi, LONG_MS, NULL), VIANIC_STATUS_TIMEOUT,
	       "and nobody meets it");
	close_context(&ctx);
}

void test_peers(void)
{
	struct context ctx, peer;
	uint32_t vi;

	if (open_context(&ctx) || open_context(&peer))
		tap_bail_out("no contexts");
	test_meeting(&ctx, &peer);
	test_bad_requests(&ctx);
	test_ends(&ctx, &peer);
	test_waiters(&ctx, &peer);
	test_storm(&ctx, &peer);
	close_context(&peer);
	close_context(&ctx);
	tap_ok(nothing_left(), "nothing is left after the peers");
	test_killed(false);
	test_killed(true);

	/* An attempt that nobody waits for goes with its file. */
	if (open_context(&ctx))
		tap_bail_out("no context");
	vi = new_vi(&ctx);
	peer_request(ctx.fd, vi, "alone", VIANIC_INFINITE_MS);
	close_context(&ctx);
	tap_ok(nothing_left(), "an attempt goes with its file");
}
