// SPDX-License-Identifier: GPL-2.0
/* Registered memory: pinned, accounted to the context's process, described for the card. */

#include <linux/capability.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "nic.h"

/* Pages of one region: 512 GiB. Bounds the page directory to what can be had in one piece. */
#define VIANIC_MAX_REGION_PAGES BIT(27)
/* The largest page that the card knows is 1 GiB. */
#define VIANIC_MAX_PAGE_SHIFT 30
/* Pages pinned or unpinned between two looks at the scheduler. */
#define VIANIC_PIN_BATCH 4096UL

static void vianic_region_free(struct vianic_region *region)
{
	unsigned long i, pages;

	for (i = 0; i < region->page_count; i += pages) {
		pages = min(region->page_count - i, VIANIC_PIN_BATCH);
		unpin_user_pages_dirty_lock(region->pages + i, pages, true);
		cond_resched();
	}
	kvfree(region->pages);
	atomic_long_sub(region->page_count, &region->nic->pinned_pages);
	atomic64_sub(region->accounted, &region->mm->pinned_vm);
	mmdrop(region->mm);

	for (i = 0; i < region->leaf_count; i++)
		free_page((unsigned long)region->leaves[i]);
	kvfree(region->leaves);
	if (region->directory)
		free_pages_exact(region->directory, region->leaf_count * sizeof(u64));
	atomic_long_sub(region->page_table_bytes, &region->nic->page_table_bytes);
	kfree(region);
}

/* Frees regions that the card has let go of. */
void vianic_regions_free(struct list_head *regions)
{
	struct vianic_region *region, *next;

	list_for_each_entry_safe(region, next, regions, node) {
		atomic_dec(&region->nic->pending_unpins);
		vianic_region_free(region);
	}
}

/* Pages that the caller may have pinned. */
static unsigned long vianic_page_limit(void)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK);

	return limit == RLIM_INFINITY || capable(CAP_IPC_LOCK) ? ULONG_MAX : limit >> PAGE_SHIFT;
}

u64 vianic_memory_limit(void)
{
	unsigned long pages = vianic_page_limit();

	return pages == ULONG_MAX ? U64_MAX : rlimit(RLIMIT_MEMLOCK);
}

static bool vianic_try_account(struct vianic_region *region, unsigned long pages)
{
	if (atomic64_add_return(pages, &region->mm->pinned_vm) <= vianic_page_limit()) {
		region->accounted = pages;
		return true;
	}
	atomic64_sub(pages, &region->mm->pinned_vm);
	return false;
}

static bool vianic_account(struct vianic_region *region, unsigned long pages)
{
	if (vianic_try_account(region, pages))
		return true;
	/* Deregistered memory counts until the card has let go of it. */
	if (!atomic_read(&region->nic->pending_unpins))
		return false;
	vianic_mrt_drain(region->nic);
	return vianic_try_account(region, pages);
}

static int vianic_pin(struct vianic_region *region, unsigned long pages)
{
	unsigned long start = region->address & PAGE_MASK;

	region->pages = kvmalloc_array(pages, sizeof(*region->pages),
				       GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!region->pages)
		return VIANIC_STATUS_ERROR_RESOURCE;
	while (region->page_count < pages) {
		int batch = min(pages - region->page_count, VIANIC_PIN_BATCH);
		int pinned = pin_user_pages_fast(start + region->page_count * PAGE_SIZE, batch,
						 FOLL_WRITE | FOLL_LONGTERM,
						 region->pages + region->page_count);

		if (pinned == -ENOMEM || pinned == -EAGAIN)
			return VIANIC_STATUS_ERROR_RESOURCE;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (pinned <= 0)
			return VIANIC_STATUS_INVALID_PARAMETER;
		region->page_count += pinned;
		atomic_long_add(pinned, &region->nic->pinned_pages);
		cond_resched();
	}
	return VIANIC_STATUS_SUCCESS;
}

/*
 * The largest page, as a power of two, in which the card may see the region: virtual
 * and physical addresses agree below it, each such page is contiguous, and, as the first
 * and the last may lie partly outside the region, lies in one folio.
 */
static u8 vianic_page_shift(const struct vianic_region *region)
{
	u64 address = region->address & PAGE_MASK;
	u8 shift = VIANIC_MAX_PAGE_SHIFT;
	u64 previous = 0;
	unsigned long i;

	for (i = 0; i < region->page_count && shift > PAGE_SHIFT; i++, address += PAGE_SIZE) {
		u64 physical = page_to_phys(region->pages[i]);
		u8 folio_shift = PAGE_SHIFT + folio_order(page_folio(region->pages[i]));

		shift = min(shift, folio_shift);
		while ((physical ^ address) & (BIT_ULL(shift) - 1))
			shift--;
		/* Not the next page in memory: a page of the card must begin here. */
		if (i && physical != previous + PAGE_SIZE) {
			while (address & (BIT_ULL(shift) - 1))
				shift--;
		}
		previous = physical;
	}
	return shift;
}

static u64 vianic_card_page(const struct vianic_region *region, u64 i)
{
	u64 first = region->address >> PAGE_SHIFT;
	u64 page = ((region->address >> region->page_shift) + i)
		   << (region->page_shift - PAGE_SHIFT);
	unsigned long index = page > first ? page - first : 0;

	return page_to_phys(region->pages[index]) & ~(BIT_ULL(region->page_shift) - 1);
}

/* Writes the page addresses where the card reads them. */
static int vianic_describe(struct vianic_region *region)
{
	u64 i, last = region->address + region->length - 1;
	u64 leaves;

	region->page_shift = vianic_page_shift(region);
	region->card_pages = (last >> region->page_shift) -
			     (region->address >> region->page_shift) + 1;
	if (region->card_pages <= VIANIC_INLINE_PAGES) {
		for (i = 0; i < region->card_pages; i++)
			region->inline_pages[i] = vianic_card_page(region, i);
		return VIANIC_STATUS_SUCCESS;
	}
	leaves = DIV_ROUND_UP(region->card_pages, VIANIC_LEAF_PAGES);
	region->leaves = kvcalloc(leaves, sizeof(*region->leaves), GFP_KERNEL_ACCOUNT);
	if (!region->leaves)
		return VIANIC_STATUS_ERROR_RESOURCE;
	region->directory = vianic_alloc_table(leaves * sizeof(u64));
	if (!region->directory)
		return VIANIC_STATUS_ERROR_RESOURCE;
	/* From here on it is this many that are freed; those not there yet are NULL. */
	region->leaf_count = leaves;
	region->page_table_bytes = PAGE_ALIGN(leaves * sizeof(u64)) + leaves * PAGE_SIZE;
	atomic_long_add(region->page_table_bytes, &region->nic->page_table_bytes);
	for (i = 0; i < leaves; i++) {
		region->leaves[i] = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
		if (!region->leaves[i])
			return VIANIC_STATUS_ERROR_RESOURCE;
		region->directory[i] = virt_to_phys(region->leaves[i]);
		cond_resched();
	}
	for (i = 0; i < region->card_pages; i++)
		region->leaves[i / VIANIC_LEAF_PAGES][i % VIANIC_LEAF_PAGES] =
			vianic_card_page(region, i);
	return VIANIC_STATUS_SUCCESS;
}

static int vianic_region_prepare(struct vianic_region *region)
{
	unsigned long pages = ((region->address + region->length - 1) >> PAGE_SHIFT) -
			      (region->address >> PAGE_SHIFT) + 1;
	int status;

	/* More than all RAM is refused before anything is allocated for it. */
	if (pages > VIANIC_MAX_REGION_PAGES || pages > totalram_pages() ||
	    !vianic_account(region, pages))
		return VIANIC_STATUS_ERROR_RESOURCE;
	status = vianic_pin(region, pages);
	return status ? status : vianic_describe(region);
}

/* Hands the region over: to the context, or, if that fails, to the end of all regions. */
static int vianic_region_insert(struct vianic_context *ctx, struct vianic_region *region,
				u32 *handle)
{
	int status = vianic_mrt_insert(ctx, region);

	if (status) {
		vianic_region_free(region);
		return status;
	}
	mutex_lock(&ctx->lock);
	*handle = region->handle;
	status = xa_err(xa_store(&ctx->regions, vianic_handle_index(*handle), region,
				 GFP_KERNEL_ACCOUNT));
	if (!status) {
		atomic_inc(&ctx->nic->regions);
		atomic64_inc(&ctx->nic->registrations);
	}
	mutex_unlock(&ctx->lock);
	if (!status)
		return VIANIC_STATUS_SUCCESS;
	vianic_mrt_retire(region);
	return VIANIC_STATUS_ERROR_RESOURCE;
}

static int vianic_access_checked(struct vianic_context *ctx, u32 access)
{
	const u32 known = VIANIC_ACCESS_RDMA_WRITE | VIANIC_ACCESS_RDMA_READ;

	if (access & ~known)
		return VIANIC_STATUS_INVALID_PARAMETER;
	if (access & VIANIC_ACCESS_RDMA_READ && !ctx->nic->limits.rdma_read_levels)
		return VIANIC_STATUS_INVALID_RDMAREAD;
	return VIANIC_STATUS_SUCCESS;
}

static int vianic_register_checked(struct vianic_context *ctx,
				   const struct vianic_register_memory *call)
{
	u64 end;

	/* The process that opened the context pays for the pages; a child has other ones. */
	if (current->mm != ctx->mm)
		return VIANIC_STATUS_INVALID_PARAMETER;
	if (!call->length || check_add_overflow(call->address, call->length, &end))
		return VIANIC_STATUS_INVALID_PARAMETER;
	return vianic_access_checked(ctx, call->access);
}

int vianic_memory_register(struct vianic_context *ctx, struct vianic_register_memory *call)
{
	struct vianic_region *region;
	int status = vianic_register_checked(ctx, call);

	if (status)
		return status;
	if (!vianic_ptag_get(ctx, call->ptag))
		return VIANIC_STATUS_INVALID_PTAG;
	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region) {
		vianic_ptag_put(ctx, call->ptag);
		return VIANIC_STATUS_ERROR_RESOURCE;
	}
	region->nic = ctx->nic;
	region->mm = ctx->mm;
	mmgrab(region->mm);
	region->context = ctx->number;
	region->ptag = call->ptag;
	region->access = call->access;
	region->address = call->address;
	region->length = call->length;

	status = vianic_region_prepare(region);
	if (status)
		vianic_region_free(region);
	else
		status = vianic_region_insert(ctx, region, &call->handle);
	if (status)
		vianic_ptag_put(ctx, call->ptag);
	return status;
}

static void vianic_region_retire(struct vianic_context *ctx, struct vianic_region *region)
{
	atomic_dec(&ctx->nic->regions);
	vianic_ptag_put(ctx, region->ptag);
	vianic_mrt_retire(region);
}

int vianic_memory_deregister(struct vianic_context *ctx,
			     const struct vianic_deregister_memory *call)
{
	u32 index = vianic_handle_index(call->handle);
	struct vianic_region *region;

	mutex_lock(&ctx->lock);
	region = xa_load(&ctx->regions, index);
	if (region && region->handle == call->handle && region->address == call->address)
		xa_erase(&ctx->regions, index);
	else
		region = NULL;
	mutex_unlock(&ctx->lock);
	if (!region)
		return VIANIC_STATUS_INVALID_PARAMETER;
	vianic_region_retire(ctx, region);
	return VIANIC_STATUS_SUCCESS;
}

/* The region with @handle around @address, or NULL. Under ctx->lock. */
static struct vianic_region *vianic_region_around(struct vianic_context *ctx, u64 address,
						  u32 handle)
{
	struct vianic_region *region = xa_load(&ctx->regions, vianic_handle_index(handle));

	if (!region || region->handle != handle || address < region->address ||
	    address - region->address >= region->length)
		return NULL;
	return region;
}

int vianic_memory_set_attributes(struct vianic_context *ctx,
				 const struct vianic_set_memory_attributes *call)
{
	int status = vianic_access_checked(ctx, call->access);
	struct vianic_region *region;

	if (status)
		return status;
	mutex_lock(&ctx->lock);
	region = vianic_region_around(ctx, call->address, call->handle);
	if (!region)
		status = VIANIC_STATUS_INVALID_PARAMETER;
	else if (!vianic_ptag_exists(ctx, call->ptag))
		status = VIANIC_STATUS_INVALID_PTAG;
	else
		status = vianic_mrt_change(region, call->ptag, call->access);
	if (!status) {
		vianic_ptag_replace(ctx, &region->ptag, call->ptag);
		region->access = call->access;
	}
	mutex_unlock(&ctx->lock);
	return status;
}

/* All regions of a context that has ended; returns when the card has let go of them. */
void vianic_memory_release(struct vianic_context *ctx)
{
	struct vianic_region *region;
	unsigned long index;

	xa_for_each(&ctx->regions, index, region) {
		xa_erase(&ctx->regions, index);
		vianic_region_retire(ctx, region);
		cond_resched();
	}
	vianic_mrt_drain(ctx->nic);
}
