// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of a file: the tables of its context, in guest RAM, and pages of the card.
 *
 * All pages come by page fault, under the gate. When the card goes away its pages are
 * taken from the mappings, and a page of zeroes comes in their place: a process that is
 * about to ring or to look at the registers does so without harm, and learns from its
 * closed Token Table and from its calls that the card is gone. No page of any mapping is freed
 * before the file is, which the mapping holds.
 */

#include <linux/fs.h>
#include <linux/version.h>

#include "nic.h"

#define VIANIC_REGISTERS_MAPPED (2 * PAGE_SIZE)

struct vianic_area {
	u64 offset;
	size_t size;
	bool needs_context;
	bool read_only;
};

static const struct vianic_area vianic_areas[] = {
	{ VIANIC_MMAP_TOKEN_TABLE, PAGE_ALIGN(VIANIC_TOKEN_TABLE_ENTRIES +
		(sizeof(struct vianic_token) << VIANIC_TOKEN_TABLE_LOG2)), true, false },
	{ VIANIC_MMAP_MCQ, PAGE_ALIGN(VIANIC_MCQ_ENTRIES +
		(sizeof(struct vianic_completion) << VIANIC_MCQ_LOG2)), true, false },
	{ VIANIC_MMAP_NRA, VIANIC_NRA_SIZE, true, false },
	{ VIANIC_MMAP_DOORBELL, PAGE_SIZE, true, false },
	{ VIANIC_MMAP_REGISTERS, VIANIC_REGISTERS_MAPPED, false, true },
};

static const struct vianic_area *vianic_find_area(u64 offset, u64 size)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(vianic_areas); i++) {
		const struct vianic_area *area = &vianic_areas[i];

		if (offset >= area->offset && offset - area->offset < area->size &&
		    size <= area->size - (offset - area->offset))
			return area;
	}
	return NULL;
}

/* The page at @offset of @area while the card lives, or what stands for it. Under the gate. */
static unsigned long vianic_pfn(struct vianic_file *file, const struct vianic_area *area,
				u64 offset)
{
	/* Pairs with the store of OPEN_CONTEXT. */
	struct vianic_context *ctx = smp_load_acquire(&file->ctx);
	struct vianic_nic *nic = file->nic;
	bool gone = nic->state == VIANIC_DOWN || (ctx && READ_ONCE(ctx->dead));

	switch (area->offset) {
	case VIANIC_MMAP_TOKEN_TABLE:
		return PHYS_PFN(virt_to_phys(ctx->token_table) + offset);
	case VIANIC_MMAP_MCQ:
		return PHYS_PFN(virt_to_phys(ctx->mcq) + offset);
	case VIANIC_MMAP_NRA:
		return gone ? PHYS_PFN(virt_to_phys(ctx->blank)) :
			      PHYS_PFN(nic->memory.requests_phys +
				       ctx->number * VIANIC_NRA_SIZE + offset);
	case VIANIC_MMAP_DOORBELL:
		return gone ? PHYS_PFN(virt_to_phys(ctx->blank)) : ctx->doorbell.pfn;
	default:
		return gone ? PHYS_PFN(virt_to_phys(nic->blank_registers)) :
			      PHYS_PFN(nic->memory.registers_phys + offset);
	}
}

static vm_fault_t vianic_fault(struct vm_fault *vmf)
{
	struct vianic_file *file = vmf->vma->vm_private_data;
	u64 offset = (u64)vmf->pgoff << PAGE_SHIFT;
	const struct vianic_area *area = vianic_find_area(offset, PAGE_SIZE);
	vm_fault_t result;

	if (!area)
		return VM_FAULT_SIGBUS;
	/* Read: a stop waits until the page is in, and then takes it out again. */
	down_read(&file->nic->gate);
	result = vmf_insert_pfn(vmf->vma, vmf->address,
				vianic_pfn(file, area, offset - area->offset));
	up_read(&file->nic->gate);
	return result;
}

static const struct vm_operations_struct vianic_vm_ops = {
	.fault = vianic_fault,
};

static void vianic_set_flags(struct vm_area_struct *vma, bool read_only)
{
	unsigned long set = VM_IO | VM_PFNMAP | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP;
	unsigned long clear = VM_MAYEXEC | (read_only ? VM_MAYWRITE : 0);

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(vma, set, clear);
#else
	vma->vm_flags |= set;
	vma->vm_flags &= ~clear;
#endif
}

int vianic_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct vianic_file *file = filp->private_data;
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	const struct vianic_area *area = vianic_find_area(offset, vma->vm_end - vma->vm_start);
	/* Pairs with the store of OPEN_CONTEXT. */
	struct vianic_context *ctx = smp_load_acquire(&file->ctx);

	if (!area || !(vma->vm_flags & VM_SHARED) || vma->vm_flags & VM_EXEC)
		return -EINVAL;
	if (area->read_only && vma->vm_flags & VM_WRITE)
		return -EACCES;
	if (area->needs_context && !ctx)
		return -ENXIO;
	if (!vianic_nic_is_live(file->nic) || (ctx && READ_ONCE(ctx->dead)))
		return -ENODEV;
	vianic_set_flags(vma, area->read_only);
	if (area->offset == VIANIC_MMAP_DOORBELL)
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	vma->vm_private_data = file;
	vma->vm_ops = &vianic_vm_ops;
	return 0;
}

/* The card is down: takes its pages from all mappings. */
void vianic_mmap_zap(struct vianic_nic *nic)
{
	struct vianic_file *file;

	mutex_lock(&nic->files_lock);
	list_for_each_entry(file, &nic->files, node)
		unmap_mapping_range(file->filp->f_mapping, 0, 0, 1);
	mutex_unlock(&nic->files_lock);
}
