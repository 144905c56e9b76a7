// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting for a Notification Request Area word to fire.
 *
 * The event interrupt counts how often each word has fired and wakes those who wait for
 * it; a waiter sleeps while the count is the one it knows. Counts have one writer, the
 * interrupt, under nic->contexts_lock. Each firing counts for VIANIC_NRA_ANY, too.
 */

#include <linux/hash.h>
#include <linux/math64.h>
#include <linux/nospec.h>

#include "nic.h"

/* Beyond this many milliseconds (34 years) nobody counts. */
#define VIANIC_LONGEST_MS BIT_ULL(40)

long vianic_timeout_jiffies(u64 timeout_ms)
{
	if (timeout_ms >= VIANIC_LONGEST_MS)
		return MAX_SCHEDULE_TIMEOUT;
	return timeout_ms ? DIV_ROUND_UP_ULL(timeout_ms * HZ, 1000) + 1 : 0;
}

static wait_queue_head_t *vianic_waiters(struct vianic_context *ctx, u32 nra_word)
{
	return &ctx->waiters[hash_32(nra_word, VIANIC_WAIT_BUCKETS_LOG2)];
}

void vianic_wait_init(struct vianic_context *ctx)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(ctx->waiters); i++)
		init_waitqueue_head(&ctx->waiters[i]);
}

static void vianic_count(struct vianic_context *ctx, u32 nra_word)
{
	WRITE_ONCE(ctx->fired[nra_word], ctx->fired[nra_word] + 1);
	wake_up_all(vianic_waiters(ctx, nra_word));
}

void vianic_wait_fire(struct vianic_context *ctx, u32 nra_word)
{
	vianic_count(ctx, nra_word);
	vianic_count(ctx, VIANIC_NRA_ANY);
}

/* Those who wait look at ctx->failed, ctx->dead and ctx->shut_down, too. */
void vianic_wait_wake_all(struct vianic_context *ctx)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(ctx->waiters); i++)
		wake_up_all(&ctx->waiters[i]);
}

static bool vianic_is_broken(struct vianic_context *ctx)
{
	return READ_ONCE(ctx->failed) || READ_ONCE(ctx->dead);
}

static bool vianic_is_over(struct vianic_context *ctx, u32 word, u32 seen)
{
	return READ_ONCE(ctx->fired[word]) != seen || READ_ONCE(ctx->shut_down) ||
	       vianic_is_broken(ctx);
}

int vianic_wait(struct vianic_context *ctx, struct vianic_wait *call)
{
	u32 word = call->nra_word;
	u32 seen = call->seen;
	long left;

	if (word >= VIANIC_NRA_WORDS)
		return VIANIC_STATUS_INVALID_PARAMETER;
	word = array_index_nospec(word, VIANIC_NRA_WORDS);
	left = wait_event_interruptible_timeout(*vianic_waiters(ctx, word),
						vianic_is_over(ctx, word, seen),
						vianic_timeout_jiffies(call->timeout_ms));
	call->seen = READ_ONCE(ctx->fired[word]);
	if (READ_ONCE(ctx->shut_down))
		return VIANIC_STATUS_CANCELLED;
	if (call->seen != seen)
		return VIANIC_STATUS_SUCCESS;
	if (vianic_is_broken(ctx))
		return VIANIC_STATUS_NIC_FAILED;
	return left < 0 ? -EINTR : VIANIC_STATUS_TIMEOUT;
}
