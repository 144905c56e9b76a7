// SPDX-License-Identifier: GPL-2.0
/*
 * Connections. LISTEN, CONNECT and ACCEPT wait for somebody else: a time-out, a signal or
 * SHUT_DOWN takes the command back. Either way the command is seen through to its completion before
 * the call returns, so nothing is left behind.
 */

#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "nic.h"

/* How long a requester may take to confirm that it was accepted. */
#define VIANIC_CONFIRM_TIMEOUT (10 * HZ)

/* Checks an address from user space and wipes what is beyond its lengths; false if it is none. */
bool vianic_address_checked(struct vianic_net_address *address)
{
	if ((address->host_len && address->host_len != sizeof(address->host)) ||
	    address->discriminator_len > sizeof(address->discriminator))
		return false;
	memset(address->host + address->host_len, 0, sizeof(address->host) - address->host_len);
	memset(address->discriminator + address->discriminator_len, 0,
	       sizeof(address->discriminator) - address->discriminator_len);
	return true;
}

/*
 * Posts @command, which waits for a peer, and waits for at most @timeout jiffies. An
 * interrupted call returns -EINTR, unless the command has had a result all the same.
 */
static int vianic_wait_for_peer(struct vianic_context *ctx, struct vianic_command *command,
				u16 opcode, const void *body, long timeout)
{
	struct vianic_nic *nic = ctx->nic;
	struct vianic_cancel cancel = {};
	long left = 1;
	int status;

	status = vianic_command_post(nic, ctx, command, opcode, body);
	if (status)
		return status;
	/* A shut-down that comes after this look finds the command and disturbs it. */
	if (!command->waits || !READ_ONCE(ctx->shut_down))
		left = wait_for_completion_interruptible_timeout(&command->done, timeout);
	if (vianic_command_is_done(nic, command)) {
		status = command->status;
		/* Not taken back by us: its context was ended, as the card is being closed. */
		if (status == VIANIC_STATUS_CANCELLED && !vianic_nic_is_live(nic))
			status = VIANIC_STATUS_NIC_FAILED;
		return status;
	}
	cancel.tag = command->tag;
	vianic_command(nic, NULL, VIANIC_OPCODE_CANCEL, &cancel);
	status = vianic_command_wait(nic, command);
	if (status != VIANIC_STATUS_CANCELLED || left > 0)
		return status;
	return left < 0 ? -EINTR : VIANIC_STATUS_TIMEOUT;
}

static int vianic_wait_with_block(struct vianic_context *ctx, u16 opcode, u16 vi,
				  struct vianic_connect_block *block, u64 timeout_ms)
{
	struct vianic_connect body = {
		.context = ctx->number,
		.vi = vi,
		.block = virt_to_phys(block),
	};
	struct vianic_command command = { .waits = ctx };

	return vianic_wait_for_peer(ctx, &command, opcode, &body,
				    vianic_timeout_jiffies(timeout_ms));
}

/* What the card says of the peer, within its bounds. */
static void vianic_copy_address(struct vianic_net_address *to,
				const struct vianic_net_address *from)
{
	*to = *from;
	to->host_len = min_t(u16, to->host_len, sizeof(to->host));
	to->discriminator_len = min_t(u16, to->discriminator_len, sizeof(to->discriminator));
	to->reserved = 0;
}

int vianic_connect_wait(struct vianic_context *ctx, struct vianic_connect_wait *call)
{
	struct vianic_connect_block *block;
	int status;

	if (!vianic_address_checked(&call->local))
		return VIANIC_STATUS_INVALID_PARAMETER;
	block = kzalloc(sizeof(*block), GFP_KERNEL_ACCOUNT);
	if (!block)
		return VIANIC_STATUS_ERROR_RESOURCE;
	block->local = call->local;
	status = vianic_wait_with_block(ctx, VIANIC_OPCODE_LISTEN, 0, block, call->timeout_ms);
	if (!status) {
		vianic_copy_address(&call->remote, &block->remote);
		call->attributes = block->attributes;
		call->connection = block->connection;
		if (fatal_signal_pending(current)) {
			/* Nobody will ever answer this request. */
			vianic_connect_reject(ctx, call->connection);
			status = -EINTR;
		}
	}
	kfree(block);
	return status;
}

int vianic_connect_request(struct vianic_context *ctx, struct vianic_connect_request *call)
{
	struct vianic_connect_block *block;
	int status;

	if (!vianic_address_checked(&call->local) || !vianic_address_checked(&call->remote) ||
	    !call->timeout_ms || !vianic_vi_exists(ctx, call->vi))
		return VIANIC_STATUS_INVALID_PARAMETER;
	block = kzalloc(sizeof(*block), GFP_KERNEL_ACCOUNT);
	if (!block)
		return VIANIC_STATUS_ERROR_RESOURCE;
	block->local = call->local;
	block->local.host_len = sizeof(block->local.host);
	memcpy(block->local.host, ctx->nic->limits.nic_address, sizeof(block->local.host));
	block->remote = call->remote;
	status = vianic_wait_with_block(ctx, VIANIC_OPCODE_CONNECT, call->vi, block,
					call->timeout_ms);
	if (!status) {
		call->attributes = block->attributes;
		if (fatal_signal_pending(current)) {
			vianic_disconnect(ctx, call->vi);
			status = -EINTR;
		}
	}
	kfree(block);
	return status;
}

/* The requester confirms, so this waits for a peer; one that does not in time has gone. */
int vianic_connect_accept(struct vianic_context *ctx, const struct vianic_connect_answer *call)
{
	struct vianic_answer body = {
		.context = ctx->number,
		.vi = call->vi,
		.connection = call->connection,
	};
	struct vianic_command command = {};

	if (!vianic_vi_exists(ctx, call->vi))
		return VIANIC_STATUS_INVALID_PARAMETER;
	return vianic_wait_for_peer(ctx, &command, VIANIC_OPCODE_ACCEPT, &body,
				    VIANIC_CONFIRM_TIMEOUT);
}

int vianic_connect_reject(struct vianic_context *ctx, u32 connection)
{
	struct vianic_answer body = { .context = ctx->number, .connection = connection };

	return vianic_command(ctx->nic, ctx, VIANIC_OPCODE_REJECT, &body);
}

int vianic_disconnect(struct vianic_context *ctx, u32 vi)
{
	struct vianic_target body = { .context = ctx->number, .object = vi };
	int status;

	if (!vianic_vi_exists(ctx, vi))
		return VIANIC_STATUS_INVALID_PARAMETER;
	status = vianic_command(ctx->nic, ctx, VIANIC_OPCODE_DISCONNECT, &body);
	if (!status)
		vianic_peer_forget(ctx, vi);
	return status;
}
