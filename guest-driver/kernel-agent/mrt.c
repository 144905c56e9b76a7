// SPDX-License-Identifier: GPL-2.0
/*
 * The Memory Region Table and the Memory Deregistration List.
 *
 * A handle's index is used again only after the card has let go of it, and then as
 * late as possible (first in, first out), with another generation.
 *
 * Commands are posted with mrt->lock held. That cannot deadlock: what completes a
 * command (the reaper, or a stop before it comes to vianic_mrt_reset) takes no mrt->lock.
 */

#include <linux/sched.h>
#include <linux/slab.h>

#include "nic.h"

#define VIANIC_NO_INDEX U32_MAX

/* A sleeping card is asked to let go of deregistered memory after this time. */
#define VIANIC_DRAIN_DELAY (HZ / 10)

/* A chunk of the table, and what only the Kernel Agent knows of it. */
struct vianic_mrt_part {
	struct vianic_mrt_entry *entries;
	u32 next[VIANIC_MRT_CHUNK_ENTRIES];
	u16 generation[VIANIC_MRT_CHUNK_ENTRIES];
};

#define VIANIC_MRT_CHUNK_SIZE (VIANIC_MRT_CHUNK_ENTRIES * sizeof(struct vianic_mrt_entry))

static_assert(sizeof(struct vianic_mrt_entry) == 128);
static_assert(VIANIC_MRT_CHUNK_SIZE % PAGE_SIZE == 0);

static struct vianic_mrt_part *vianic_mrt_part(struct vianic_mrt *mrt, u32 index)
{
	return mrt->parts[index / VIANIC_MRT_CHUNK_ENTRIES];
}

static struct vianic_mrt_entry *vianic_mrt_entry(struct vianic_mrt *mrt, u32 index)
{
	return &vianic_mrt_part(mrt, index)->entries[index % VIANIC_MRT_CHUNK_ENTRIES];
}

static u32 *vianic_mrt_next(struct vianic_mrt *mrt, u32 index)
{
	return &vianic_mrt_part(mrt, index)->next[index % VIANIC_MRT_CHUNK_ENTRIES];
}

static void vianic_mrt_free_index(struct vianic_mrt *mrt, u32 index)
{
	*vianic_mrt_next(mrt, index) = VIANIC_NO_INDEX;
	if (mrt->first_free == VIANIC_NO_INDEX)
		mrt->first_free = index;
	else
		*vianic_mrt_next(mrt, mrt->last_free) = index;
	mrt->last_free = index;
}

static u32 vianic_mrt_take_index(struct vianic_mrt *mrt)
{
	u32 index = mrt->first_free;

	if (index != VIANIC_NO_INDEX)
		mrt->first_free = *vianic_mrt_next(mrt, index);
	return index;
}

static void vianic_mrt_part_free(struct vianic_mrt_part *part)
{
	if (part)
		vianic_free_table(part->entries, VIANIC_MRT_CHUNK_SIZE);
	kvfree(part);
}

/* Makes the table one chunk larger. */
static int vianic_mrt_grow(struct vianic_nic *nic)
{
	struct vianic_mrt *mrt = &nic->mrt;
	u32 first = mrt->part_count * VIANIC_MRT_CHUNK_ENTRIES;
	struct vianic_mrt_chunk body = { .chunk = mrt->part_count };
	struct vianic_mrt_part *part;
	int status;
	u32 i;

	if (first >= nic->limits.max_regions)
		return VIANIC_STATUS_ERROR_RESOURCE;
	part = kvzalloc(sizeof(*part), GFP_KERNEL);
	if (part)
		part->entries = vianic_alloc_table(VIANIC_MRT_CHUNK_SIZE);
	if (!part || !part->entries) {
		vianic_mrt_part_free(part);
		return VIANIC_STATUS_ERROR_RESOURCE;
	}
	/* In place before the card knows it: if it fails meanwhile, the reset frees it. */
	mrt->parts[mrt->part_count++] = part;
	body.address = virt_to_phys(part->entries);
	status = vianic_command(nic, NULL, VIANIC_OPCODE_ADD_MRT_CHUNK, &body);
	if (status < 0 || status == VIANIC_STATUS_NIC_FAILED)
		return status;
	if (status) {
		mrt->part_count--;
		mrt->parts[mrt->part_count] = NULL;
		vianic_mrt_part_free(part);
		return VIANIC_STATUS_ERROR_RESOURCE;
	}
	for (i = 0; i < VIANIC_MRT_CHUNK_ENTRIES && first + i < nic->limits.max_regions; i++)
		vianic_mrt_free_index(mrt, first + i);
	return VIANIC_STATUS_SUCCESS;
}

/* How many entries of the MDL the card has let go of. A card that says nonsense is failed. */
static bool vianic_mrt_drained(struct vianic_nic *nic, u32 *drained)
{
	/* The card is done with the memory before it says so. */
	*drained = virt_load_acquire(&nic->memory.registers->mdl_drained);
	if (nic->mrt.inserted - *drained <= VIANIC_MDL_ENTRIES)
		return true;
	vianic_nic_fail(nic, "mdl_drained is beyond MDL_Insert");
	return false;
}

/* Moves the regions that the card has let go of to @done. */
static void vianic_mrt_collect(struct vianic_nic *nic, struct list_head *done)
{
	struct vianic_mrt *mrt = &nic->mrt;
	struct vianic_region *region, *next;
	u32 drained;

	if (!mrt->online || !vianic_mrt_drained(nic, &drained))
		return;
	list_for_each_entry_safe(region, next, &mrt->retired, node) {
		if ((s32)(drained - region->mdl_position) < 0)
			break;
		vianic_mrt_free_index(mrt, vianic_handle_index(region->handle));
		list_move_tail(&region->node, done);
	}
}

/* Has the card let go of everything now. What it does not let go of, the reset does. */
static void vianic_mrt_drain_locked(struct vianic_nic *nic, struct list_head *done)
{
	struct vianic_mrt *mrt = &nic->mrt;
	int status;

	vianic_mrt_collect(nic, done);
	if (list_empty(&mrt->retired))
		return;
	status = vianic_command(nic, NULL, VIANIC_OPCODE_DRAIN_MDL, NULL);
	if (status < 0)
		return;
	vianic_mrt_collect(nic, done);
	if (status || !list_empty(&mrt->retired))
		vianic_nic_fail(nic, "it does not let go of deregistered memory");
}

void vianic_mrt_drain(struct vianic_nic *nic)
{
	LIST_HEAD(done);

	mutex_lock(&nic->mrt.lock);
	vianic_mrt_drain_locked(nic, &done);
	mutex_unlock(&nic->mrt.lock);
	vianic_regions_free(&done);
}

static void vianic_mrt_drain_work(struct work_struct *work)
{
	vianic_mrt_drain(container_of(work, struct vianic_nic, mrt.drain.work));
}

static int vianic_mrt_find_index(struct vianic_nic *nic, u32 *index, struct list_head *done)
{
	struct vianic_mrt *mrt = &nic->mrt;
	int status;

	*index = vianic_mrt_take_index(mrt);
	if (*index != VIANIC_NO_INDEX)
		return VIANIC_STATUS_SUCCESS;
	status = vianic_mrt_grow(nic);
	if (status == VIANIC_STATUS_ERROR_RESOURCE)
		vianic_mrt_drain_locked(nic, done);
	else if (status)
		return status;
	*index = vianic_mrt_take_index(mrt);
	return *index == VIANIC_NO_INDEX ? VIANIC_STATUS_ERROR_RESOURCE : VIANIC_STATUS_SUCCESS;
}

/* Enters a region into the table; from then on its handle works. */
int vianic_mrt_insert(struct vianic_context *ctx, struct vianic_region *region)
{
	struct vianic_nic *nic = ctx->nic;
	struct vianic_mrt *mrt = &nic->mrt;
	struct vianic_mrt_entry *entry;
	LIST_HEAD(done);
	u16 *generation;
	u32 index;
	int status;

	mutex_lock(&mrt->lock);
	if (!mrt->online || READ_ONCE(ctx->dead)) {
		status = -ENODEV;
		goto out;
	}
	status = vianic_mrt_find_index(nic, &index, &done);
	if (status)
		goto out;
	generation = &vianic_mrt_part(mrt, index)->generation[index % VIANIC_MRT_CHUNK_ENTRIES];
	*generation = *generation % VIANIC_MAX_GENERATION + 1;
	region->handle = (u32)*generation << VIANIC_HANDLE_INDEX_BITS | index;
	region->epoch = mrt->epoch;

	entry = vianic_mrt_entry(mrt, index);
	entry->ptag = region->ptag;
	entry->context = region->context;
	entry->access = region->access;
	entry->page_shift = region->page_shift;
	entry->virtual_address = region->address;
	entry->length = region->length;
	entry->page_count = region->card_pages;
	entry->page_directory = region->directory ? virt_to_phys(region->directory) : 0;
	memcpy(entry->pages, region->inline_pages, sizeof(entry->pages));
	/* The handle makes the entry valid: last. */
	virt_store_release(&entry->handle, region->handle);
out:
	mutex_unlock(&mrt->lock);
	vianic_regions_free(&done);
	return status;
}

/* Makes sure that the list has room; false: the card has failed, the reset is under way. */
static bool vianic_mdl_has_room(struct vianic_nic *nic, struct list_head *done)
{
	struct vianic_mrt *mrt = &nic->mrt;
	u32 drained;

	if (vianic_mrt_drained(nic, &drained) && mrt->inserted - drained < VIANIC_MDL_ENTRIES)
		return true;
	atomic64_inc(&nic->mdl_full);
	vianic_mrt_drain_locked(nic, done);
	return vianic_mrt_drained(nic, &drained) && mrt->inserted - drained < VIANIC_MDL_ENTRIES;
}

/* Puts a handle into the list, which has room. */
static void vianic_mdl_insert(struct vianic_nic *nic, u32 handle)
{
	struct vianic_mrt *mrt = &nic->mrt;
	u32 *mdl = nic->memory.requests + VIANIC_MDL_OFFSET;

	WRITE_ONCE(mdl[mrt->inserted % VIANIC_MDL_ENTRIES], handle);
	mrt->inserted++;
	/* What became of the table's entry, and the handle in the list, before it counts. */
	virt_store_release(mrt->mdl_insert, mrt->inserted);
}

/*
 * Gives a region another tag and other permissions, in the steps of abi/src/mrt.rs. When it
 * returns the card goes by the new ones.
 */
int vianic_mrt_change(struct vianic_region *region, u32 ptag, u16 access)
{
	struct vianic_nic *nic = region->nic;
	struct vianic_mrt *mrt = &nic->mrt;
	struct vianic_mrt_entry *entry;
	LIST_HEAD(done);
	int status = -ENODEV;

	mutex_lock(&mrt->lock);
	if (!mrt->online || region->epoch != mrt->epoch || !vianic_mdl_has_room(nic, &done))
		goto out;
	entry = vianic_mrt_entry(mrt, vianic_handle_index(region->handle));
	/* What both allow comes first: the card may see the old tag with it, */
	virt_store_release(&entry->access, entry->access & access);
	/* or the new one, */
	virt_store_release(&entry->ptag, ptag);
	/* and what only the new ones allow no earlier than the new tag. */
	virt_store_release(&entry->access, access);
	vianic_mdl_insert(nic, region->handle);
	status = vianic_command(nic, NULL, VIANIC_OPCODE_DRAIN_MDL, NULL);
	if (status > 0)
		vianic_nic_fail(nic, "it does not let go of changed memory");
out:
	mutex_unlock(&mrt->lock);
	vianic_regions_free(&done);
	return status;
}

/*
 * Takes a region out of the table. Its pages stay pinned until the card has let go of
 * the handle; nobody waits for that, unless the list is full.
 */
void vianic_mrt_retire(struct vianic_region *region)
{
	struct vianic_nic *nic = region->nic;
	struct vianic_mrt *mrt = &nic->mrt;
	LIST_HEAD(done);

	atomic_inc(&nic->pending_unpins);
	mutex_lock(&mrt->lock);
	if (region->epoch != mrt->epoch) {
		/* The card has been reset since and knows nothing of it. */
		list_add_tail(&region->node, &done);
		goto out;
	}
	WRITE_ONCE(vianic_mrt_entry(mrt, vianic_handle_index(region->handle))->handle, 0);
	if (!vianic_mdl_has_room(nic, &done)) {
		/* The card has failed, the reset is under way: it finds the region here. */
		region->mdl_position = mrt->inserted + VIANIC_MDL_ENTRIES;
		list_add_tail(&region->node, &mrt->retired);
		goto out;
	}
	vianic_mdl_insert(nic, region->handle);
	region->mdl_position = mrt->inserted;
	list_add_tail(&region->node, &mrt->retired);
	if (READ_ONCE(vianic_eager_deregistration))
		vianic_mrt_drain_locked(nic, &done);
	else
		vianic_mrt_collect(nic, &done);
	if (!list_empty(&mrt->retired))
		queue_delayed_work(vianic_wq, &mrt->drain, VIANIC_DRAIN_DELAY);
out:
	mutex_unlock(&mrt->lock);
	vianic_regions_free(&done);
}

static void vianic_mrt_clear(struct vianic_mrt *mrt)
{
	while (mrt->part_count) {
		mrt->part_count--;
		vianic_mrt_part_free(mrt->parts[mrt->part_count]);
		mrt->parts[mrt->part_count] = NULL;
	}
	mrt->first_free = VIANIC_NO_INDEX;
}

int vianic_mrt_init(struct vianic_nic *nic)
{
	struct vianic_mrt *mrt = &nic->mrt;

	mutex_init(&mrt->lock);
	INIT_LIST_HEAD(&mrt->retired);
	INIT_DELAYED_WORK(&mrt->drain, vianic_mrt_drain_work);
	mrt->first_free = VIANIC_NO_INDEX;
	mrt->mdl_insert = (u32 *)get_zeroed_page(GFP_KERNEL);
	return mrt->mdl_insert ? 0 : -ENOMEM;
}

void vianic_mrt_destroy(struct vianic_nic *nic)
{
	vianic_mrt_clear(&nic->mrt);
	free_page((unsigned long)nic->mrt.mdl_insert);
}

/* Before the card is attached: an empty table and an empty list. */
void vianic_mrt_start(struct vianic_nic *nic)
{
	struct vianic_mrt *mrt = &nic->mrt;

	mutex_lock(&mrt->lock);
	mrt->inserted = 0;
	*mrt->mdl_insert = 0;
	mrt->online = true;
	mutex_unlock(&mrt->lock);
}

/* After a reset: nothing that the card knew is of use to it. */
void vianic_mrt_reset(struct vianic_nic *nic)
{
	struct vianic_mrt *mrt = &nic->mrt;
	LIST_HEAD(done);

	mutex_lock(&mrt->lock);
	mrt->online = false;
	mrt->epoch++;
	list_splice_init(&mrt->retired, &done);
	vianic_mrt_clear(mrt);
	mutex_unlock(&mrt->lock);
	vianic_regions_free(&done);
}
