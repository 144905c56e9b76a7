// SPDX-License-Identifier: GPL-2.0
/*
 * Control commands: posted to context 0's Token Table, completed by context 0's MCQ.
 *
 * The poster's and the consumer's end of the protocols that the contract describes
 * (abi/src/token_table.rs, abi/src/completion.rs). The other end is not another
 * processor of this machine, so the barriers are the virt_ ones, which do not
 * vanish on a machine with one processor.
 */

#include <linux/jiffies.h>
#include <linux/string.h>

#include "nic.h"

#define VIANIC_TOKENS ((u32)BIT(VIANIC_TOKEN_TABLE_LOG2))
#define VIANIC_COMPLETIONS ((u32)BIT(VIANIC_MCQ_LOG2))

static bool vianic_has_room(struct vianic_nic *nic)
{
	u32 *word = vianic_word(nic->token_table, VIANIC_TOKEN_TABLE_LAST_ACCEPTED);
	/* The card has read an entry before we fill it again. */
	u32 accepted = virt_load_acquire(word);

	return READ_ONCE(nic->inserted) - accepted < VIANIC_TOKENS;
}

static void vianic_ring(struct vianic_nic *nic)
{
	nic->bus->ring(nic);
}

/* One poster at a time: a full table is seen before an entry is reserved. Under gate, post_lock. */
static void vianic_post(struct vianic_nic *nic, const struct vianic_command *command,
			u16 opcode, const void *body)
{
	u32 index = nic->inserted + 1;
	struct vianic_token token = {
		.sequence = index,
		.vi = opcode,
		.kind = VIANIC_TOKEN_KIND_COMMAND,
		.descriptor = command->tag,
	};
	u64 *slot = nic->token_table + VIANIC_TOKEN_TABLE_ENTRIES +
		    sizeof(token) * (index & (VIANIC_TOKENS - 1));
	const u64 *words = (const u64 *)&token;
	u32 accepted;
	int i;

	if (body)
		memcpy(token.body, body, sizeof(token.body));
	WRITE_ONCE(nic->inserted, index);
	WRITE_ONCE(*vianic_word(nic->token_table, VIANIC_TOKEN_TABLE_LAST_INSERTED), index);
	for (i = 1; i < sizeof(token) / sizeof(u64); i++)
		WRITE_ONCE(slot[i], words[i]);
	/* The sequence word makes the entry valid: last. */
	virt_store_release(slot, words[0]);

	/* Our entry before our look at the card's state; the card does the reverse. */
	virt_mb();
	if (READ_ONCE(*vianic_word(nic->token_table, VIANIC_TOKEN_TABLE_NIC_STATE)) ==
	    VIANIC_NIC_STATE_POLLING)
		return;
	accepted = READ_ONCE(*vianic_word(nic->token_table, VIANIC_TOKEN_TABLE_LAST_ACCEPTED));
	if (accepted + 1 == index)
		vianic_ring(nic);
}

static void vianic_command_forget(struct vianic_nic *nic, struct vianic_command *command)
{
	spin_lock(&nic->commands_lock);
	hash_del(&command->node);
	spin_unlock(&nic->commands_lock);
}

enum vianic_posted { VIANIC_POSTED, VIANIC_FULL, VIANIC_CLOSED, VIANIC_REFUSED };

static enum vianic_posted vianic_try_post(struct vianic_nic *nic, struct vianic_context *ctx,
					  const struct vianic_command *command, u16 opcode,
					  const void *body)
{
	enum vianic_posted posted;

	down_read(&nic->gate);
	mutex_lock(&nic->post_lock);
	if (nic->state == VIANIC_DOWN || (ctx && ctx->dead)) {
		posted = VIANIC_REFUSED;
	} else if (vianic_table_is_closed(nic->token_table)) {
		posted = VIANIC_CLOSED;
	} else if (!vianic_has_room(nic)) {
		posted = VIANIC_FULL;
	} else {
		vianic_post(nic, command, opcode, body);
		posted = VIANIC_POSTED;
	}
	mutex_unlock(&nic->post_lock);
	up_read(&nic->gate);
	return posted;
}

/*
 * Posts a command on behalf of @ctx (NULL: of nobody). Once this has returned 0 the
 * caller must see it through with vianic_command_wait(): until then @command
 * and all memory that @body points the card to belong to the card.
 */
int vianic_command_post(struct vianic_nic *nic, struct vianic_context *ctx,
			struct vianic_command *command, u16 opcode, const void *body)
{
	unsigned int slices = max(READ_ONCE(vianic_command_timeout), 1U);
	enum vianic_posted posted;

	command->status = VIANIC_STATUS_NIC_FAILED;
	init_completion(&command->done);
	spin_lock(&nic->commands_lock);
	command->tag = ++nic->last_tag;
	hash_add(nic->commands, &command->node, command->tag);
	spin_unlock(&nic->commands_lock);

	for (;;) {
		posted = vianic_try_post(nic, ctx, command, opcode, body);
		if (posted != VIANIC_FULL || !slices--)
			break;
		wait_event_timeout(nic->reaped, vianic_has_room(nic), HZ);
	}
	if (posted == VIANIC_POSTED) {
		atomic64_inc(&nic->command_count);
		return 0;
	}
	if (posted == VIANIC_CLOSED)
		vianic_nic_fail(nic, "it has closed the Kernel Agent's Token Table");
	else if (posted == VIANIC_FULL)
		vianic_nic_fail(nic, "it accepts no commands");
	vianic_command_forget(nic, command);
	return -ENODEV;
}

/* Whether a command is completed and @command the caller's again, as nobody else touches it. */
bool vianic_command_is_done(struct vianic_nic *nic, struct vianic_command *command)
{
	bool done;

	spin_lock(&nic->commands_lock);
	done = hlist_unhashed(&command->node);
	spin_unlock(&nic->commands_lock);
	return done;
}

/*
 * Waits for a command that the card completes by itself, within the time that a card
 * has. A card that does not is reset, which completes everything.
 */
int vianic_command_wait(struct vianic_nic *nic, struct vianic_command *command)
{
	/* In slices: a jump of the clock (a paused machine) costs one of them. */
	unsigned int slices = max(READ_ONCE(vianic_command_timeout), 1U);

	while (!vianic_command_is_done(nic, command)) {
		if (!slices)
			wait_for_completion(&command->done);
		else if (!wait_for_completion_timeout(&command->done, HZ) && !--slices)
			vianic_nic_fail(nic, "it does not complete its commands");
	}
	return command->status;
}

/* Posts a command that does not wait for anybody, and waits for its completion. */
int vianic_command(struct vianic_nic *nic, struct vianic_context *ctx, u16 opcode,
		   const void *body)
{
	struct vianic_command command = {};
	int err = vianic_command_post(nic, ctx, &command, opcode, body);

	return err ? err : vianic_command_wait(nic, &command);
}

/* Wakes those who wait for a peer on behalf of @ctx, so that they look at ctx->shut_down. */
void vianic_commands_disturb(struct vianic_nic *nic, struct vianic_context *ctx)
{
	struct vianic_command *command;
	int bucket;

	spin_lock(&nic->commands_lock);
	hash_for_each(nic->commands, bucket, command, node) {
		if (command->waits == ctx)
			complete(&command->done);
	}
	spin_unlock(&nic->commands_lock);
	wake_up_all(&ctx->peers);
}

/* The card's word on an outcome, if it is one. */
static u32 vianic_checked_status(struct vianic_nic *nic, u32 status)
{
	switch (status) {
	case VIANIC_STATUS_SUCCESS:
	case VIANIC_STATUS_INVALID_PARAMETER:
	case VIANIC_STATUS_ERROR_RESOURCE:
	case VIANIC_STATUS_TIMEOUT:
	case VIANIC_STATUS_REJECT:
	case VIANIC_STATUS_INVALID_RELIABILITY_LEVEL:
	case VIANIC_STATUS_INVALID_MTU:
	case VIANIC_STATUS_INVALID_QOS:
	case VIANIC_STATUS_INVALID_PTAG:
	case VIANIC_STATUS_INVALID_RDMAREAD:
	case VIANIC_STATUS_INVALID_STATE:
	case VIANIC_STATUS_NO_MATCH:
	case VIANIC_STATUS_NOT_REACHABLE:
	case VIANIC_STATUS_NOT_SUPPORTED:
	case VIANIC_STATUS_CANCELLED:
	case VIANIC_STATUS_NIC_FAILED:
		return status;
	default:
		dev_warn_ratelimited(nic->dev, "the card completed a command with status %#x\n",
				     status);
		return VIANIC_STATUS_NIC_FAILED;
	}
}

/* The last touch: the waiter's stack may be gone afterwards. Under commands_lock. */
static void vianic_command_end(struct vianic_command *command, u32 status)
{
	hash_del(&command->node);
	command->status = status;
	if (command->waits)
		wake_up_all(&command->waits->peers);
	complete(&command->done);
}

static void vianic_complete(struct vianic_nic *nic, u64 tag, u32 status)
{
	struct vianic_command *command;

	spin_lock(&nic->commands_lock);
	hash_for_each_possible(nic->commands, command, node, tag) {
		if (command->tag != tag)
			continue;
		vianic_command_end(command, vianic_checked_status(nic, status));
		spin_unlock(&nic->commands_lock);
		return;
	}
	spin_unlock(&nic->commands_lock);
	dev_warn_ratelimited(nic->dev, "the card completed a command that was not posted: %#llx\n",
			     tag);
}

static u64 *vianic_mcq_slot(struct vianic_nic *nic, u32 index)
{
	return nic->mcq + VIANIC_MCQ_ENTRIES +
	       sizeof(struct vianic_completion) * (index & (VIANIC_COMPLETIONS - 1));
}

static bool vianic_mcq_is_ready(struct vianic_nic *nic)
{
	u32 index = nic->consumed + 1;

	/* The sequence word is the low half; the rest of the entry is read after it. */
	return (u32)virt_load_acquire(vianic_mcq_slot(nic, index)) == index;
}

/* Takes what is there; false if there was nothing. */
static bool vianic_mcq_take(struct vianic_nic *nic)
{
	unsigned int taken = 0;

	while (taken < VIANIC_COMPLETIONS / 2 && vianic_mcq_is_ready(nic)) {
		u64 *slot = vianic_mcq_slot(nic, nic->consumed + 1);
		struct vianic_completion entry;
		u64 *words = (u64 *)&entry;
		int i;

		/* One copy: what is checked is what is used. */
		for (i = 0; i < sizeof(entry) / sizeof(u64); i++)
			words[i] = READ_ONCE(slot[i]);
		nic->consumed++;
		taken++;
		if (entry.kind == VIANIC_COMPLETION_KIND_COMMAND)
			vianic_complete(nic, entry.descriptor, entry.status);
		else
			dev_warn_ratelimited(nic->dev, "unknown completion kind %u\n", entry.kind);
	}
	return taken;
}

/* Gives the slots back to the card. Under the gate. */
static void vianic_mcq_publish(struct vianic_nic *nic)
{
	u32 *stalled = vianic_word(nic->mcq, VIANIC_MCQ_STALLED);

	/* The entries have been read. */
	virt_store_release(vianic_word(nic->mcq, VIANIC_MCQ_CONSUMED), nic->consumed);
	/* Our count before our look at the card's word; the card does the reverse. */
	virt_mb();
	if (READ_ONCE(*stalled) && xchg(stalled, 0))
		vianic_ring(nic);
}

/*
 * Work: completes what context 0's MCQ reports, and arms its notification. nic->consumed
 * is this work's alone, as a work never runs twice at once.
 */
void vianic_reap(struct work_struct *work)
{
	struct vianic_nic *nic = container_of(work, struct vianic_nic, reap_work);
	u32 *nra_word;

	down_read(&nic->gate);
	if (nic->state == VIANIC_DOWN)
		goto out;
	nra_word = nic->memory.requests + VIANIC_NRA_MCQ * sizeof(u32);
	if (vianic_mcq_take(nic))
		vianic_mcq_publish(nic);
	WRITE_ONCE(*nra_word, 1);
	/* Armed before the last look: the card looks at the word after each entry. */
	virt_mb();
	if (vianic_mcq_is_ready(nic))
		queue_work(vianic_wq, &nic->reap_work);
out:
	up_read(&nic->gate);
	wake_up_all(&nic->reaped);
}

/* A fresh context 0. The card is reset: nobody else uses the tables. */
void vianic_commands_start(struct vianic_nic *nic)
{
	memset(nic->token_table, 0, vianic_token_table_size(VIANIC_TOKEN_TABLE_LOG2));
	memset(nic->mcq, 0, vianic_mcq_size(VIANIC_MCQ_LOG2));
	nic->inserted = 0;
	nic->consumed = 0;
}

/* After a reset: the commands that the card will never complete. */
void vianic_commands_fail(struct vianic_nic *nic)
{
	struct vianic_command *command;
	struct hlist_node *next;
	int bucket;

	spin_lock(&nic->commands_lock);
	hash_for_each_safe(nic->commands, bucket, next, command, node) {
		vianic_command_end(command, VIANIC_STATUS_NIC_FAILED);
	}
	spin_unlock(&nic->commands_lock);
}
