// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts of processes.
 *
 * The tables of a context are the card's until DESTROY_CONTEXT has completed or the card
 * has been reset, and the process's until its last mapping is gone, which the open file
 * outlives. They are freed when both are over.
 */

#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "nic.h"

static void vianic_context_free(struct kref *kref)
{
	struct vianic_context *ctx = container_of(kref, struct vianic_context, kref);

	vianic_free_table(ctx->token_table, vianic_token_table_size(VIANIC_TOKEN_TABLE_LOG2));
	vianic_free_table(ctx->mcq, vianic_mcq_size(VIANIC_MCQ_LOG2));
	free_page((unsigned long)ctx->blank);
	mmdrop(ctx->mm);
	kvfree(ctx);
}

void vianic_context_put(struct vianic_context *ctx)
{
	kref_put(&ctx->kref, vianic_context_free);
}

static struct vianic_context *vianic_context_alloc(struct vianic_nic *nic)
{
	struct vianic_context *ctx = kvzalloc(sizeof(*ctx), GFP_KERNEL_ACCOUNT);

	if (!ctx)
		return NULL;
	kref_init(&ctx->kref);
	ctx->nic = nic;
	ctx->mm = current->mm;
	mmgrab(ctx->mm);
	mutex_init(&ctx->lock);
	ctx->ended = true;
	xa_init_flags(&ctx->ptags, XA_FLAGS_ALLOC1);
	xa_init_flags(&ctx->cqs, XA_FLAGS_ALLOC);
	xa_init_flags(&ctx->vis, XA_FLAGS_ALLOC);
	xa_init(&ctx->regions);
	init_waitqueue_head(&ctx->peers);
	vianic_wait_init(ctx);
	ctx->token_table = vianic_alloc_table(vianic_token_table_size(VIANIC_TOKEN_TABLE_LOG2));
	ctx->mcq = vianic_alloc_table(vianic_mcq_size(VIANIC_MCQ_LOG2));
	ctx->blank = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!ctx->token_table || !ctx->mcq || !ctx->blank) {
		vianic_context_put(ctx);
		return NULL;
	}
	return ctx;
}

/* Gives the context a number; events for it reach it from now on. */
static bool vianic_context_link(struct vianic_context *ctx)
{
	struct vianic_nic *nic = ctx->nic;
	unsigned int count = nic->limits.max_contexts;
	unsigned int number;

	spin_lock_irq(&nic->contexts_lock);
	/* In turn: events for a number's last owner have arrived before it is used again. */
	number = find_next_zero_bit(nic->context_numbers, count, nic->last_context + 1);
	if (number >= count)
		number = find_first_zero_bit(nic->context_numbers, count);
	if (number < count) {
		__set_bit(number, nic->context_numbers);
		nic->last_context = number;
		nic->contexts[number] = ctx;
		ctx->number = number;
		atomic_inc(&nic->context_count);
	}
	spin_unlock_irq(&nic->contexts_lock);
	return number < count;
}

static void vianic_context_unlink(struct vianic_context *ctx)
{
	struct vianic_nic *nic = ctx->nic;

	spin_lock_irq(&nic->contexts_lock);
	/* A dead context's number may be another's by now. */
	if (!ctx->dead) {
		nic->contexts[ctx->number] = NULL;
		__clear_bit(ctx->number, nic->context_numbers);
		atomic_dec(&nic->context_count);
	}
	spin_unlock_irq(&nic->contexts_lock);
}

/* Finds the doorbell and clears what the number's last owner left armed. */
static int vianic_context_prepare(struct vianic_context *ctx)
{
	struct vianic_nic *nic = ctx->nic;
	int status = VIANIC_STATUS_SUCCESS;

	down_read(&nic->gate);
	if (nic->state != VIANIC_LIVE || READ_ONCE(ctx->dead))
		status = -ENODEV;
	else if (!nic->bus->doorbell(nic, ctx->number, &ctx->doorbell))
		status = VIANIC_STATUS_NOT_SUPPORTED;
	else
		memset(nic->memory.requests + ctx->number * VIANIC_NRA_SIZE, 0, VIANIC_NRA_SIZE);
	up_read(&nic->gate);
	return status;
}

static int vianic_context_create(struct vianic_context *ctx)
{
	struct vianic_create_context body = {
		.context = ctx->number,
		.token_table_log2 = VIANIC_TOKEN_TABLE_LOG2,
		.mcq_log2 = VIANIC_MCQ_LOG2,
		.token_table = virt_to_phys(ctx->token_table),
		.mcq = virt_to_phys(ctx->mcq),
	};
	int status = vianic_context_prepare(ctx);

	if (status)
		return status;
	mutex_lock(&ctx->lock);
	status = vianic_command(ctx->nic, ctx, VIANIC_OPCODE_CREATE_CONTEXT, &body);
	ctx->ended = status;
	mutex_unlock(&ctx->lock);
	if (status == VIANIC_STATUS_NIC_FAILED)
		vianic_nic_fail(ctx->nic, "it makes no context");
	return status;
}

int vianic_context_open(struct vianic_nic *nic, struct vianic_context **result)
{
	struct vianic_context *ctx = vianic_context_alloc(nic);
	int status = VIANIC_STATUS_ERROR_RESOURCE;

	if (!ctx)
		return status;
	if (vianic_context_link(ctx)) {
		status = vianic_context_create(ctx);
		if (!status) {
			*result = ctx;
			return status;
		}
		/* Refused: the card knows nothing of it. Else it knows until it is reset. */
		if (status < 0 || status == VIANIC_STATUS_NIC_FAILED)
			vianic_nic_settle(nic);
		vianic_context_unlink(ctx);
	}
	vianic_context_put(ctx);
	return status;
}

/* Has the card end the context; false: only a reset, which is under way or done, has ended it. */
static bool vianic_context_end(struct vianic_context *ctx)
{
	struct vianic_target body = { .context = ctx->number };
	struct vianic_nic *nic = ctx->nic;
	int status = VIANIC_STATUS_SUCCESS;

	mutex_lock(&ctx->lock);
	if (!ctx->ended) {
		status = vianic_command(nic, ctx, VIANIC_OPCODE_DESTROY_CONTEXT, &body);
		if (status > 0)
			vianic_nic_fail(nic, "it does not end a context");
		ctx->ended = !status;
	}
	mutex_unlock(&ctx->lock);
	return !status;
}

/* Ends all waits on behalf of the context, those under way and those to come. */
int vianic_context_shut_down(struct vianic_context *ctx)
{
	WRITE_ONCE(ctx->shut_down, true);
	vianic_wait_wake_all(ctx);
	vianic_commands_disturb(ctx->nic, ctx);
	return VIANIC_STATUS_SUCCESS;
}

/* The file is closed: no call and no mapping is left, only what the card and this driver have. */
void vianic_context_release(struct vianic_context *ctx)
{
	bool ended = vianic_context_end(ctx);

	vianic_memory_release(ctx);
	if (!ended)
		vianic_nic_settle(ctx->nic);
	vianic_context_unlink(ctx);
	vianic_objects_release(ctx);
	vianic_context_put(ctx);
}

/* The card is being closed: ends every context while its file stays open. */
void vianic_contexts_end(struct vianic_nic *nic)
{
	unsigned int number;

	for (number = 1; number < VIANIC_MAX_CONTEXTS; number++) {
		struct vianic_context *ctx;

		spin_lock_irq(&nic->contexts_lock);
		ctx = nic->contexts[number];
		/* Linked by a file that has not put it yet: the count is not zero. */
		if (ctx)
			kref_get(&ctx->kref);
		spin_unlock_irq(&nic->contexts_lock);
		if (!ctx)
			continue;
		vianic_context_end(ctx);
		vianic_context_put(ctx);
	}
}

/* After a reset: every context is unknown to the card; those who post or wait learn it. */
void vianic_contexts_die(struct vianic_nic *nic)
{
	unsigned int number;

	spin_lock_irq(&nic->contexts_lock);
	for (number = 1; number < VIANIC_MAX_CONTEXTS; number++) {
		struct vianic_context *ctx = nic->contexts[number];

		if (!ctx)
			continue;
		nic->contexts[number] = NULL;
		__clear_bit(number, nic->context_numbers);
		atomic_dec(&nic->context_count);
		WRITE_ONCE(ctx->dead, true);
		WRITE_ONCE(*vianic_word(ctx->token_table, VIANIC_TOKEN_TABLE_NIC_STATE),
			   VIANIC_NIC_STATE_CLOSED);
		vianic_wait_wake_all(ctx);
	}
	spin_unlock_irq(&nic->contexts_lock);
}
