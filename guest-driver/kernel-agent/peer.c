// SPDX-License-Identifier: GPL-2.0
/*
 * Connections between equals. CONNECT_PEER_REQUEST posts a command that waits for the
 * partner, and returns; the command and its block belong to an attempt, which the VI
 * keeps until somebody has been told what became of it. When the attempt's time is over, or
 * the VI is disconnected or destroyed, the card completes the command as cancelled.
 *
 * vi->attempt changes under ctx->lock, and to NULL only when the command is completed:
 * then nothing of the attempt is the card's any more.
 */

#include <linux/slab.h>
#include <linux/string.h>

#include "nic.h"

struct vianic_attempt {
	/* The VI's, the timer's, and those of calls that wait. */
	struct kref kref;
	struct vianic_nic *nic;
	struct vianic_command command;
	struct delayed_work expire;
	bool expired;
	struct vianic_connect_block block __aligned(8);
};

static void vianic_attempt_free(struct kref *kref)
{
	struct vianic_attempt *attempt = container_of(kref, struct vianic_attempt, kref);

	vianic_nic_put(attempt->nic);
	kfree(attempt);
}

static void vianic_attempt_put(struct vianic_attempt *attempt)
{
	kref_put(&attempt->kref, vianic_attempt_free);
}

/* Work: the time is over. A command that is completed already is not hurt. */
static void vianic_attempt_expire(struct work_struct *work)
{
	struct vianic_attempt *attempt =
		container_of(to_delayed_work(work), struct vianic_attempt, expire);
	struct vianic_cancel body = { .tag = attempt->command.tag };

	WRITE_ONCE(attempt->expired, true);
	if (!vianic_command_is_done(attempt->nic, &attempt->command))
		vianic_command(attempt->nic, NULL, VIANIC_OPCODE_CANCEL, &body);
	vianic_attempt_put(attempt);
}

static struct vianic_attempt *vianic_attempt_alloc(struct vianic_context *ctx,
						   const struct vianic_connect_request *call)
{
	struct vianic_attempt *attempt = kzalloc(sizeof(*attempt), GFP_KERNEL_ACCOUNT);

	if (!attempt)
		return NULL;
	kref_init(&attempt->kref);
	vianic_nic_get(ctx->nic);
	attempt->nic = ctx->nic;
	attempt->command.waits = ctx;
	INIT_DELAYED_WORK(&attempt->expire, vianic_attempt_expire);
	attempt->block.local = call->local;
	attempt->block.remote = call->remote;
	return attempt;
}

/* Takes the attempt, whose command is completed, off its VI. Under ctx->lock. */
static void vianic_attempt_end(struct vianic_vi *vi)
{
	struct vianic_attempt *attempt = vi->attempt;

	vi->attempt = NULL;
	if (cancel_delayed_work(&attempt->expire))
		vianic_attempt_put(attempt);
	vianic_attempt_put(attempt);
}

/* The VI is destroyed, and its attempt with it: the card has completed it. Under ctx->lock. */
void vianic_peer_release(struct vianic_vi *vi)
{
	if (!vi->attempt)
		return;
	vianic_command_wait(vi->attempt->nic, &vi->attempt->command);
	vianic_attempt_end(vi);
}

/* The VI has been disconnected: nobody will ask what became of an attempt that this has ended. */
void vianic_peer_forget(struct vianic_context *ctx, u32 number)
{
	struct vianic_vi *vi;

	mutex_lock(&ctx->lock);
	vi = xa_load(&ctx->vis, number);
	if (vi && vi->attempt && vianic_command_is_done(ctx->nic, &vi->attempt->command))
		vianic_attempt_end(vi);
	mutex_unlock(&ctx->lock);
}

static int vianic_attempt_begin(struct vianic_context *ctx, struct vianic_attempt *attempt,
				const struct vianic_connect_request *call)
{
	struct vianic_connect body = {
		.context = ctx->number,
		.vi = call->vi,
		.block = virt_to_phys(&attempt->block),
	};
	long timeout = vianic_timeout_jiffies(call->timeout_ms);
	struct vianic_vi *vi = xa_load(&ctx->vis, call->vi);
	int status;

	if (!vi)
		return VIANIC_STATUS_INVALID_PARAMETER;
	if (vi->attempt)
		return VIANIC_STATUS_INVALID_STATE;
	status = vianic_command_post(ctx->nic, ctx, &attempt->command,
				     VIANIC_OPCODE_CONNECT_PEER, &body);
	if (status)
		return status;
	vi->attempt = attempt;
	if (timeout != MAX_SCHEDULE_TIMEOUT) {
		kref_get(&attempt->kref);
		queue_delayed_work(vianic_peer_wq, &attempt->expire, timeout);
	}
	return VIANIC_STATUS_SUCCESS;
}

int vianic_connect_peer_request(struct vianic_context *ctx, struct vianic_connect_request *call)
{
	struct vianic_attempt *attempt;
	int status;

	if (!vianic_address_checked(&call->local) || !vianic_address_checked(&call->remote) ||
	    !call->timeout_ms)
		return VIANIC_STATUS_INVALID_PARAMETER;
	attempt = vianic_attempt_alloc(ctx, call);
	if (!attempt)
		return VIANIC_STATUS_ERROR_RESOURCE;
	mutex_lock(&ctx->lock);
	status = vianic_attempt_begin(ctx, attempt, call);
	mutex_unlock(&ctx->lock);
	if (status)
		vianic_attempt_put(attempt);
	return status;
}

static struct vianic_attempt *vianic_attempt_get(struct vianic_context *ctx, u32 number)
{
	struct vianic_attempt *attempt = NULL;
	struct vianic_vi *vi;

	mutex_lock(&ctx->lock);
	vi = xa_load(&ctx->vis, number);
	if (vi && vi->attempt) {
		attempt = vi->attempt;
		kref_get(&attempt->kref);
	}
	mutex_unlock(&ctx->lock);
	return attempt;
}

/* What became of an attempt whose command is completed. */
static int vianic_attempt_status(struct vianic_context *ctx, struct vianic_attempt *attempt)
{
	if (attempt->command.status != VIANIC_STATUS_CANCELLED)
		return attempt->command.status;
	if (!vianic_nic_is_live(ctx->nic))
		return VIANIC_STATUS_NIC_FAILED;
	return READ_ONCE(attempt->expired) ? VIANIC_STATUS_TIMEOUT : VIANIC_STATUS_CANCELLED;
}

/* Tells what became of the attempt, unless somebody else has been told, or the VI gave it up. */
static int vianic_attempt_tell(struct vianic_context *ctx, struct vianic_attempt *attempt,
			       struct vianic_connect_peer_wait *call)
{
	int status = VIANIC_STATUS_INVALID_STATE;
	struct vianic_vi *vi;

	mutex_lock(&ctx->lock);
	vi = xa_load(&ctx->vis, call->vi);
	if (vi && vi->attempt == attempt) {
		status = vianic_attempt_status(ctx, attempt);
		if (!status)
			call->attributes = attempt->block.attributes;
		vianic_attempt_end(vi);
	}
	mutex_unlock(&ctx->lock);
	return status;
}

int vianic_connect_peer_wait(struct vianic_context *ctx, struct vianic_connect_peer_wait *call)
{
	struct vianic_attempt *attempt = vianic_attempt_get(ctx, call->vi);
	struct vianic_nic *nic = ctx->nic;
	int status;
	long left;

	if (!attempt)
		return vianic_vi_exists(ctx, call->vi) ? VIANIC_STATUS_INVALID_STATE :
							 VIANIC_STATUS_INVALID_PARAMETER;
	left = wait_event_interruptible_timeout(ctx->peers,
						vianic_command_is_done(nic, &attempt->command) ||
						READ_ONCE(ctx->shut_down),
						vianic_timeout_jiffies(call->timeout_ms));
	if (vianic_command_is_done(nic, &attempt->command))
		status = vianic_attempt_tell(ctx, attempt, call);
	else if (READ_ONCE(ctx->shut_down))
		status = VIANIC_STATUS_CANCELLED;
	else
		status = left < 0 ? -EINTR : VIANIC_STATUS_NOT_DONE;
	vianic_attempt_put(attempt);
	return status;
}
