// SPDX-License-Identifier: GPL-2.0
/*
 * Protection tags, completion queues and VIs of a context. ctx->lock protects them and
 * is held over the commands that make and end them, so that the numbers here and in the
 * card never disagree.
 */

#include <linux/bitops.h>
#include <linux/slab.h>

#include "nic.h"

/* Tags are the Kernel Agent's alone; bounds what a process can have of its memory. */
#define VIANIC_MAX_PTAG 65536

static void vianic_use(struct xarray *objects, u32 number)
{
	struct vianic_object *object = xa_load(objects, number);

	if (object)
		object->users++;
}

static void vianic_unuse(struct xarray *objects, u32 number)
{
	struct vianic_object *object = xa_load(objects, number);

	if (object)
		object->users--;
}

/* Gives @object the lowest free number; ERROR_RESOURCE without one or without memory. */
static int vianic_number(struct xarray *objects, void *object, u32 first, u32 last, u32 *number)
{
	if (xa_alloc(objects, number, object, XA_LIMIT(first, last), GFP_KERNEL_ACCOUNT))
		return VIANIC_STATUS_ERROR_RESOURCE;
	return VIANIC_STATUS_SUCCESS;
}

static int vianic_target(struct vianic_context *ctx, u16 opcode, u32 object)
{
	struct vianic_target body = { .context = ctx->number, .object = object };

	return vianic_command(ctx->nic, ctx, opcode, &body);
}

/* --- Protection tags --- */

/* Under ctx->lock. */
bool vianic_ptag_exists(struct vianic_context *ctx, u32 ptag)
{
	return ptag == VIANIC_DEFAULT_PTAG || xa_load(&ctx->ptags, ptag);
}

bool vianic_ptag_get(struct vianic_context *ctx, u32 ptag)
{
	bool found;

	mutex_lock(&ctx->lock);
	found = vianic_ptag_exists(ctx, ptag);
	vianic_use(&ctx->ptags, ptag);
	mutex_unlock(&ctx->lock);
	return found;
}

void vianic_ptag_put(struct vianic_context *ctx, u32 ptag)
{
	mutex_lock(&ctx->lock);
	vianic_unuse(&ctx->ptags, ptag);
	mutex_unlock(&ctx->lock);
}

/* What had @ptag has @other, which exists, from now on. Under ctx->lock. */
void vianic_ptag_replace(struct vianic_context *ctx, u32 *ptag, u32 other)
{
	vianic_unuse(&ctx->ptags, *ptag);
	vianic_use(&ctx->ptags, other);
	*ptag = other;
}

int vianic_ptag_create(struct vianic_context *ctx, u32 *ptag)
{
	struct vianic_object *object = kzalloc(sizeof(*object), GFP_KERNEL_ACCOUNT);
	int status;

	if (!object)
		return VIANIC_STATUS_ERROR_RESOURCE;
	mutex_lock(&ctx->lock);
	status = vianic_number(&ctx->ptags, object, 1, VIANIC_MAX_PTAG, ptag);
	mutex_unlock(&ctx->lock);
	if (status)
		kfree(object);
	return status;
}

int vianic_ptag_destroy(struct vianic_context *ctx, u32 ptag)
{
	struct vianic_object *object;
	int status = VIANIC_STATUS_SUCCESS;

	mutex_lock(&ctx->lock);
	object = xa_load(&ctx->ptags, ptag);
	if (!object)
		status = VIANIC_STATUS_INVALID_PARAMETER;
	else if (object->users)
		status = VIANIC_STATUS_ERROR_RESOURCE;
	else
		kfree(xa_erase(&ctx->ptags, ptag));
	mutex_unlock(&ctx->lock);
	return status;
}

/* --- Completion queues --- */

int vianic_cq_create(struct vianic_context *ctx, u32 *cq)
{
	struct vianic_object *object = kzalloc(sizeof(*object), GFP_KERNEL_ACCOUNT);
	int status = VIANIC_STATUS_ERROR_RESOURCE;

	if (!object)
		return status;
	mutex_lock(&ctx->lock);
	if (ctx->nic->limits.max_cq)
		status = vianic_number(&ctx->cqs, object, 0, ctx->nic->limits.max_cq - 1, cq);
	if (!status) {
		status = vianic_target(ctx, VIANIC_OPCODE_CREATE_CQ, *cq);
		if (status)
			xa_erase(&ctx->cqs, *cq);
	}
	mutex_unlock(&ctx->lock);
	if (status)
		kfree(object);
	return status;
}

int vianic_cq_destroy(struct vianic_context *ctx, u32 cq)
{
	struct vianic_object *object;
	int status;

	mutex_lock(&ctx->lock);
	object = xa_load(&ctx->cqs, cq);
	if (!object) {
		status = VIANIC_STATUS_INVALID_PARAMETER;
	} else if (object->users) {
		status = VIANIC_STATUS_ERROR_RESOURCE;
	} else {
		status = vianic_target(ctx, VIANIC_OPCODE_DESTROY_CQ, cq);
		if (!status)
			kfree(xa_erase(&ctx->cqs, cq));
	}
	mutex_unlock(&ctx->lock);
	return status;
}

/* --- VIs --- */

static bool vianic_has_cq(struct vianic_context *ctx, u16 cq)
{
	return cq == VIANIC_NO_CQ || xa_load(&ctx->cqs, cq);
}

static int vianic_vi_checked(struct vianic_context *ctx,
			     const struct vianic_vi_attributes *attributes, u32 ptag)
{
	const struct vianic_registers *limits = &ctx->nic->limits;
	const u16 known = VIANIC_VI_RDMA_WRITE | VIANIC_VI_RDMA_READ;
	const u16 levels = VIANIC_RELIABILITY_LEVEL_UNRELIABLE |
			   VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY |
			   VIANIC_RELIABILITY_LEVEL_RELIABLE_RECEPTION;

	if (hweight16(attributes->reliability_level) != 1 ||
	    !(attributes->reliability_level & levels & limits->reliability_levels))
		return VIANIC_STATUS_INVALID_RELIABILITY_LEVEL;
	if (attributes->max_transfer_size > limits->max_transfer_size)
		return VIANIC_STATUS_INVALID_MTU;
	if (attributes->flags & ~known)
		return VIANIC_STATUS_INVALID_PARAMETER;
	if (attributes->flags & VIANIC_VI_RDMA_READ &&
	    !(attributes->reliability_level & limits->rdma_read_levels))
		return VIANIC_STATUS_INVALID_RDMAREAD;
	if (!vianic_ptag_exists(ctx, ptag))
		return VIANIC_STATUS_INVALID_PTAG;
	return VIANIC_STATUS_SUCCESS;
}

static int vianic_vi_make(struct vianic_context *ctx, struct vianic_vi *vi,
			  struct vianic_create_vi_call *call)
{
	struct vianic_create_vi body = {
		.context = ctx->number,
		.send_cq = call->send_cq,
		.receive_cq = call->receive_cq,
		.ptag = call->ptag,
		.attributes = call->attributes,
	};
	int status = vianic_vi_checked(ctx, &call->attributes, call->ptag);

	if (status)
		return status;
	if (!vianic_has_cq(ctx, call->send_cq) || !vianic_has_cq(ctx, call->receive_cq))
		return VIANIC_STATUS_INVALID_PARAMETER;
	if (!ctx->nic->limits.max_vi)
		return VIANIC_STATUS_ERROR_RESOURCE;
	status = vianic_number(&ctx->vis, vi, 0, ctx->nic->limits.max_vi - 1, &call->vi);
	if (status)
		return status;
	body.vi = call->vi;
	status = vianic_command(ctx->nic, ctx, VIANIC_OPCODE_CREATE_VI, &body);
	if (status) {
		xa_erase(&ctx->vis, call->vi);
		return status;
	}
	*vi = (struct vianic_vi) {
		.ptag = call->ptag,
		.send_cq = call->send_cq,
		.receive_cq = call->receive_cq,
	};
	vianic_use(&ctx->ptags, vi->ptag);
	vianic_use(&ctx->cqs, vi->send_cq);
	vianic_use(&ctx->cqs, vi->receive_cq);
	return VIANIC_STATUS_SUCCESS;
}

int vianic_vi_create(struct vianic_context *ctx, struct vianic_create_vi_call *call)
{
	struct vianic_vi *vi = kzalloc(sizeof(*vi), GFP_KERNEL_ACCOUNT);
	int status;

	if (!vi)
		return VIANIC_STATUS_ERROR_RESOURCE;
	mutex_lock(&ctx->lock);
	status = vianic_vi_make(ctx, vi, call);
	mutex_unlock(&ctx->lock);
	if (status)
		kfree(vi);
	return status;
}

/* The card refuses a VI that is not Idle; then nothing has changed. */
int vianic_vi_set_attributes(struct vianic_context *ctx,
			     const struct vianic_set_vi_attributes *call)
{
	struct vianic_set_vi body = {
		.context = ctx->number,
		.vi = call->vi,
		.ptag = call->ptag,
		.attributes = call->attributes,
	};
	struct vianic_vi *vi;
	int status = VIANIC_STATUS_INVALID_PARAMETER;

	mutex_lock(&ctx->lock);
	vi = xa_load(&ctx->vis, call->vi);
	if (vi)
		status = vianic_vi_checked(ctx, &call->attributes, call->ptag);
	if (!status)
		status = vianic_command(ctx->nic, ctx, VIANIC_OPCODE_SET_VI, &body);
	if (!status)
		vianic_ptag_replace(ctx, &vi->ptag, call->ptag);
	mutex_unlock(&ctx->lock);
	return status;
}

int vianic_vi_destroy(struct vianic_context *ctx, u32 number)
{
	struct vianic_vi *vi;
	int status = VIANIC_STATUS_INVALID_PARAMETER;

	mutex_lock(&ctx->lock);
	vi = xa_load(&ctx->vis, number);
	if (vi)
		status = vianic_target(ctx, VIANIC_OPCODE_DESTROY_VI, number);
	if (!status) {
		vianic_peer_release(vi);
		vianic_unuse(&ctx->ptags, vi->ptag);
		vianic_unuse(&ctx->cqs, vi->send_cq);
		vianic_unuse(&ctx->cqs, vi->receive_cq);
		kfree(xa_erase(&ctx->vis, number));
	}
	mutex_unlock(&ctx->lock);
	return status;
}

/* Whether a VI is there now; the card judges what becomes of it meanwhile. */
bool vianic_vi_exists(struct vianic_context *ctx, u32 number)
{
	return xa_load(&ctx->vis, number);
}

static void vianic_free_all(struct xarray *objects)
{
	unsigned long number;
	void *object;

	xa_for_each(objects, number, object)
		kfree(object);
	xa_destroy(objects);
}

/* Forgets all objects of a context that has ended; the card has, too. */
void vianic_objects_release(struct vianic_context *ctx)
{
	struct vianic_vi *vi;
	unsigned long number;

	mutex_lock(&ctx->lock);
	xa_for_each(&ctx->vis, number, vi)
		vianic_peer_release(vi);
	mutex_unlock(&ctx->lock);
	vianic_free_all(&ctx->vis);
	vianic_free_all(&ctx->cqs);
	vianic_free_all(&ctx->ptags);
}
