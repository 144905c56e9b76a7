// SPDX-License-Identifier: GPL-2.0
/* The life of a card: found, started, published as /dev/vianicN, stopped, gone. */

#include <linux/gfp.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/slab.h>

#include "nic.h"

static DEFINE_IDA(vianic_ids);

/*
 * Tables are physically contiguous guest RAM, and the card is given guest-physical
 * addresses as they are: it is part of the machine and sits behind no IOMMU. A
 * process may map them, so they are whole pages and nobody else's.
 */
void *vianic_alloc_table(size_t size)
{
	return alloc_pages_exact(size, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN |
				       __GFP_RETRY_MAYFAIL);
}

void vianic_free_table(void *table, size_t size)
{
	if (table)
		free_pages_exact(table, size);
}

static void vianic_nic_free(struct kref *kref)
{
	struct vianic_nic *nic = container_of(kref, struct vianic_nic, kref);

	vianic_mrt_destroy(nic);
	vianic_free_table(nic->token_table, vianic_token_table_size(VIANIC_TOKEN_TABLE_LOG2));
	vianic_free_table(nic->mcq, vianic_mcq_size(VIANIC_MCQ_LOG2));
	free_page((unsigned long)nic->blank_registers);
	put_device(nic->dev);
	kfree(nic);
}

void vianic_nic_get(struct vianic_nic *nic)
{
	kref_get(&nic->kref);
}

void vianic_nic_put(struct vianic_nic *nic)
{
	kref_put(&nic->kref, vianic_nic_free);
}

/*
 * Takes the card out of service for good, until it is started again: resets it,
 * so that no memory is touched any more, and only then ends every wait and lets
 * go of the memory that the card had a hold on. Sleeps.
 */
static void vianic_nic_stop(struct vianic_nic *nic)
{
	enum vianic_state before;

	mutex_lock(&nic->stop_lock);
	down_write(&nic->gate);
	before = nic->state;
	WRITE_ONCE(nic->state, VIANIC_DOWN);
	up_write(&nic->gate);
	if (before != VIANIC_DOWN) {
		nic->bus->reset(nic);
		cancel_work_sync(&nic->reap_work);
		vianic_commands_fail(nic);
		vianic_mrt_reset(nic);
		vianic_contexts_die(nic);
		vianic_mmap_zap(nic);
	}
	mutex_unlock(&nic->stop_lock);
}

static void vianic_nic_fail_work(struct work_struct *work)
{
	struct vianic_nic *nic = container_of(work, struct vianic_nic, fail_work);

	vianic_nic_stop(nic);
	vianic_nic_put(nic);
}

/*
 * The card broke the rules or no longer answers: it is stopped. Safe in any
 * context; the stop itself happens in a work, as the caller may hold locks.
 */
void vianic_nic_fail(struct vianic_nic *nic, const char *reason)
{
	if (READ_ONCE(nic->state) == VIANIC_DOWN)
		return;
	vianic_nic_get(nic);
	if (queue_work(vianic_wq, &nic->fail_work))
		dev_err(nic->dev, "the card has failed: %s\n", reason);
	else
		vianic_nic_put(nic);
}

/*
 * Waits for the end of a stop that has begun. For those who found the card down
 * and want to free what it had a hold on. Without stop_lock and object locks.
 */
void vianic_nic_settle(struct vianic_nic *nic)
{
	flush_work(&nic->fail_work);
	mutex_lock(&nic->stop_lock);
	mutex_unlock(&nic->stop_lock);
}

static int vianic_nic_reboot(struct notifier_block *block, unsigned long action, void *data)
{
	/* Peers learn that their connections are gone before the machine is. */
	vianic_nic_close(container_of(block, struct vianic_nic, reboot));
	return NOTIFY_DONE;
}

struct vianic_nic *vianic_nic_alloc(struct device *dev, const struct vianic_bus *bus,
				    void *bus_private)
{
	struct vianic_nic *nic = kzalloc(sizeof(*nic), GFP_KERNEL);

	if (!nic)
		return NULL;
	kref_init(&nic->kref);
	nic->dev = get_device(dev);
	nic->bus = bus;
	nic->bus_private = bus_private;
	nic->id = -1;
	nic->reboot.notifier_call = vianic_nic_reboot;
	mutex_init(&nic->stop_lock);
	init_rwsem(&nic->gate);
	nic->state = VIANIC_DOWN;
	INIT_WORK(&nic->fail_work, vianic_nic_fail_work);
	mutex_init(&nic->post_lock);
	INIT_WORK(&nic->reap_work, vianic_reap);
	init_waitqueue_head(&nic->reaped);
	spin_lock_init(&nic->commands_lock);
	hash_init(nic->commands);
	spin_lock_init(&nic->contexts_lock);
	__set_bit(VIANIC_KERNEL_CONTEXT, nic->context_numbers);
	mutex_init(&nic->files_lock);
	INIT_LIST_HEAD(&nic->files);

	nic->token_table = vianic_alloc_table(vianic_token_table_size(VIANIC_TOKEN_TABLE_LOG2));
	nic->mcq = vianic_alloc_table(vianic_mcq_size(VIANIC_MCQ_LOG2));
	nic->blank_registers = (void *)get_zeroed_page(GFP_KERNEL);
	if (vianic_mrt_init(nic) || !nic->token_table || !nic->mcq || !nic->blank_registers) {
		vianic_nic_put(nic);
		return NULL;
	}
	return nic;
}

/* What the bus tells the card; a fresh context 0. The card must be reset. */
void vianic_nic_attach_request(struct vianic_nic *nic, struct vianic_attach_request *request)
{
	vianic_commands_start(nic);
	vianic_mrt_start(nic);
	*request = (struct vianic_attach_request) {
		.abi_version = VIANIC_ABI_VERSION,
		.token_table_log2 = VIANIC_TOKEN_TABLE_LOG2,
		.mcq_log2 = VIANIC_MCQ_LOG2,
		.token_table = virt_to_phys(nic->token_table),
		.mcq = virt_to_phys(nic->mcq),
		.mdl_insert = virt_to_phys(nic->mrt.mdl_insert),
	};
}

static int vianic_nic_read_limits(struct vianic_nic *nic, const struct vianic_nic_memory *memory)
{
	struct vianic_registers *limits = &nic->limits;

	memcpy(limits, memory->registers, sizeof(*limits));
	if (limits->magic != VIANIC_REGISTERS_MAGIC) {
		dev_err(nic->dev, "registers read %#llx, not the card's magic: is its memory mapped?\n",
			limits->magic);
		return -ENODEV;
	}
	if (limits->abi_version != VIANIC_ABI_VERSION) {
		dev_err(nic->dev, "registers are of ABI version %u, this driver is of version %u\n",
			limits->abi_version, VIANIC_ABI_VERSION);
		return -ENODEV;
	}
	if (limits->mdl_entries != VIANIC_MDL_ENTRIES) {
		dev_err(nic->dev, "the card's MDL has %u entries, expected %u\n",
			limits->mdl_entries, VIANIC_MDL_ENTRIES);
		return -ENODEV;
	}
	limits->max_contexts = min_t(u32, limits->max_contexts, VIANIC_MAX_CONTEXTS);
	limits->max_vi = min_t(u32, limits->max_vi, VIANIC_MAX_VI);
	limits->max_cq = min_t(u32, limits->max_cq, VIANIC_MAX_CQ);
	limits->max_regions = min_t(u32, limits->max_regions,
				    VIANIC_MRT_MAX_CHUNKS * VIANIC_MRT_CHUNK_ENTRIES);
	return 0;
}

/* The card has answered the attach request: it goes into service. */
int vianic_nic_start(struct vianic_nic *nic, const struct vianic_nic_memory *memory)
{
	int err;

	mutex_lock(&nic->stop_lock);
	err = vianic_nic_read_limits(nic, memory);
	if (!err) {
		down_write(&nic->gate);
		nic->memory = *memory;
		WRITE_ONCE(nic->state, VIANIC_LIVE);
		up_write(&nic->gate);
		/* Files without a context see the registers again. */
		vianic_mmap_zap(nic);
		/* Arms the notification of context 0's MCQ. */
		queue_work(vianic_wq, &nic->reap_work);
	}
	mutex_unlock(&nic->stop_lock);
	return err;
}

/* Makes /dev/vianicN. */
int vianic_nic_publish(struct vianic_nic *nic)
{
	int err;

	nic->id = ida_alloc(&vianic_ids, GFP_KERNEL);
	if (nic->id < 0)
		return nic->id;
	snprintf(nic->name, sizeof(nic->name), "vianic%d", nic->id);
	nic->misc = (struct miscdevice) {
		.minor = MISC_DYNAMIC_MINOR,
		.name = nic->name,
		.fops = &vianic_fops,
		.parent = nic->dev,
		.groups = vianic_groups,
		/* Contexts protect processes from one another; see README.md. */
		.mode = 0666,
	};
	err = register_reboot_notifier(&nic->reboot);
	if (err)
		goto free_id;
	err = misc_register(&nic->misc);
	if (err)
		goto unregister;
	return 0;

unregister:
	unregister_reboot_notifier(&nic->reboot);
free_id:
	ida_free(&vianic_ids, nic->id);
	nic->id = -1;
	return err;
}

/* Ends all contexts in order, so that peers lose their connections now, and stops the card. */
void vianic_nic_close(struct vianic_nic *nic)
{
	down_write(&nic->gate);
	if (nic->state == VIANIC_LIVE)
		WRITE_ONCE(nic->state, VIANIC_CLOSING);
	up_write(&nic->gate);
	vianic_contexts_end(nic);
	vianic_nic_stop(nic);
	/* A failure that was noticed before must not stop the card after it is started again. */
	if (cancel_work_sync(&nic->fail_work))
		vianic_nic_put(nic);
}

/*
 * The card goes away. Files may stay open for as long as they like: they keep @nic,
 * but nothing of the bus.
 */
void vianic_nic_remove(struct vianic_nic *nic)
{
	if (nic->id >= 0) {
		misc_deregister(&nic->misc);
		unregister_reboot_notifier(&nic->reboot);
		/* The next card may have the name, even while files of this one are open. */
		ida_free(&vianic_ids, nic->id);
	}
	vianic_nic_close(nic);
	cancel_delayed_work_sync(&nic->mrt.drain);
	vianic_nic_put(nic);
}

/* What the card put on the event queue. In the interrupt. */
void vianic_nic_event(struct vianic_nic *nic, const struct vianic_event *event)
{
	bool notify = event->kind == VIANIC_EVENT_KIND_NOTIFY;
	struct vianic_context *ctx;
	unsigned long flags;

	atomic64_inc(&nic->events);
	if ((!notify && event->kind != VIANIC_EVENT_KIND_CONTEXT_FAILED) ||
	    event->context >= VIANIC_MAX_CONTEXTS ||
	    (notify && event->nra_word >= VIANIC_NRA_WORDS)) {
		dev_warn_ratelimited(nic->dev, "unknown event: kind %u context %u word %u\n",
				     event->kind, event->context, event->nra_word);
		return;
	}
	if (event->context == VIANIC_KERNEL_CONTEXT) {
		if (!notify)
			vianic_nic_fail(nic, "it refuses the Kernel Agent's context");
		else if (event->nra_word == VIANIC_NRA_MCQ)
			queue_work(vianic_wq, &nic->reap_work);
		return;
	}
	spin_lock_irqsave(&nic->contexts_lock, flags);
	ctx = nic->contexts[event->context];
	/* None: the context was ended while the event was under way. */
	if (ctx && notify) {
		vianic_wait_fire(ctx, event->nra_word);
	} else if (ctx && vianic_table_is_closed(ctx->token_table)) {
		/* Closed: it is this context that failed, not one that had its number before. */
		WRITE_ONCE(ctx->failed, true);
		vianic_wait_wake_all(ctx);
	}
	spin_unlock_irqrestore(&nic->contexts_lock, flags);
}
