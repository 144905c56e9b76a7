// SPDX-License-Identifier: GPL-2.0
/*
 * The files of /dev/vianicN. An ioctl's structure is copied in once, worked on in kernel
 * memory, and copied out if the call has an answer.
 */

#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "nic.h"

union vianic_call {
	struct vianic_nic_info nic_info;
	struct vianic_open_context open_context;
	struct vianic_object_call object;
	struct vianic_register_memory register_memory;
	struct vianic_deregister_memory deregister_memory;
	struct vianic_set_memory_attributes set_memory_attributes;
	struct vianic_create_vi_call create_vi;
	struct vianic_set_vi_attributes set_vi_attributes;
	struct vianic_connect_wait connect_wait;
	struct vianic_connect_answer connect_answer;
	struct vianic_connect_request connect_request;
	struct vianic_connect_peer_wait connect_peer_wait;
	struct vianic_discover_nics discover;
	struct vianic_wait wait;
};

/* --- The calls: each returns the answer's status, or a negative errno --- */

static int vianic_call_query_nic(struct vianic_file *file, union vianic_call *call)
{
	struct vianic_nic_info *info = &call->nic_info;
	struct vianic_nic *nic = file->nic;

	if (info->reserved)
		return -EINVAL;
	down_read(&nic->gate);
	if (nic->state != VIANIC_LIVE) {
		up_read(&nic->gate);
		return -ENODEV;
	}
	info->registers = nic->limits;
	info->registers.link_state = READ_ONCE(nic->memory.registers->link_state);
	info->registers.mdl_drained = READ_ONCE(nic->memory.registers->mdl_drained);
	up_read(&nic->gate);
	info->max_register_bytes = vianic_memory_limit();
	return VIANIC_STATUS_SUCCESS;
}

static int vianic_call_open_context(struct vianic_file *file, union vianic_call *call)
{
	struct vianic_open_context *open = &call->open_context;
	struct vianic_context *ctx;
	int status;

	if (open->abi_version != VIANIC_ABI_VERSION)
		return VIANIC_STATUS_NOT_SUPPORTED;
	mutex_lock(&file->lock);
	status = file->ctx ? -EBUSY : vianic_context_open(file->nic, &ctx);
	if (!status) {
		open->context = ctx->number;
		open->token_table_log2 = VIANIC_TOKEN_TABLE_LOG2;
		open->mcq_log2 = VIANIC_MCQ_LOG2;
		open->doorbell_offset = ctx->doorbell.offset;
		open->doorbell_value = ctx->doorbell.value;
		/* Whole before others see it. */
		smp_store_release(&file->ctx, ctx);
	}
	mutex_unlock(&file->lock);
	return status;
}

static int vianic_call_create_ptag(struct vianic_file *file, union vianic_call *call)
{
	return vianic_ptag_create(file->ctx, &call->object.object);
}

static int vianic_call_destroy_ptag(struct vianic_file *file, union vianic_call *call)
{
	return vianic_ptag_destroy(file->ctx, call->object.object);
}

static int vianic_call_register_memory(struct vianic_file *file, union vianic_call *call)
{
	return vianic_memory_register(file->ctx, &call->register_memory);
}

static int vianic_call_deregister_memory(struct vianic_file *file, union vianic_call *call)
{
	return vianic_memory_deregister(file->ctx, &call->deregister_memory);
}

static int vianic_call_set_memory_attributes(struct vianic_file *file, union vianic_call *call)
{
	return vianic_memory_set_attributes(file->ctx, &call->set_memory_attributes);
}

static int vianic_undo_register_memory(struct vianic_file *file, union vianic_call *call)
{
	struct vianic_deregister_memory undo = {
		.address = call->register_memory.address,
		.handle = call->register_memory.handle,
	};

	return vianic_memory_deregister(file->ctx, &undo);
}

static int vianic_call_create_cq(struct vianic_file *file, union vianic_call *call)
{
	return vianic_cq_create(file->ctx, &call->object.object);
}

static int vianic_call_destroy_cq(struct vianic_file *file, union vianic_call *call)
{
	return vianic_cq_destroy(file->ctx, call->object.object);
}

static int vianic_call_create_vi(struct vianic_file *file, union vianic_call *call)
{
	return vianic_vi_create(file->ctx, &call->create_vi);
}

static int vianic_call_set_vi_attributes(struct vianic_file *file, union vianic_call *call)
{
	if (call->set_vi_attributes.reserved)
		return -EINVAL;
	return vianic_vi_set_attributes(file->ctx, &call->set_vi_attributes);
}

static int vianic_undo_create_vi(struct vianic_file *file, union vianic_call *call)
{
	return vianic_vi_destroy(file->ctx, call->create_vi.vi);
}

static int vianic_call_destroy_vi(struct vianic_file *file, union vianic_call *call)
{
	return vianic_vi_destroy(file->ctx, call->object.object);
}

static int vianic_call_connect_wait(struct vianic_file *file, union vianic_call *call)
{
	if (call->connect_wait.local.reserved)
		return -EINVAL;
	return vianic_connect_wait(file->ctx, &call->connect_wait);
}

static int vianic_undo_connect_wait(struct vianic_file *file, union vianic_call *call)
{
	return vianic_connect_reject(file->ctx, call->connect_wait.connection);
}

static int vianic_call_connect_accept(struct vianic_file *file, union vianic_call *call)
{
	if (call->connect_answer.reserved)
		return -EINVAL;
	return vianic_connect_accept(file->ctx, &call->connect_answer);
}

static int vianic_call_connect_reject(struct vianic_file *file, union vianic_call *call)
{
	if (call->connect_answer.reserved)
		return -EINVAL;
	return vianic_connect_reject(file->ctx, call->connect_answer.connection);
}

static int vianic_call_connect_request(struct vianic_file *file, union vianic_call *call)
{
	if (call->connect_request.local.reserved || call->connect_request.remote.reserved)
		return -EINVAL;
	return vianic_connect_request(file->ctx, &call->connect_request);
}

static int vianic_undo_connect_request(struct vianic_file *file, union vianic_call *call)
{
	return vianic_disconnect(file->ctx, call->connect_request.vi);
}

static int vianic_call_connect_peer_request(struct vianic_file *file, union vianic_call *call)
{
	if (call->connect_request.local.reserved || call->connect_request.remote.reserved)
		return -EINVAL;
	return vianic_connect_peer_request(file->ctx, &call->connect_request);
}

static int vianic_call_connect_peer_wait(struct vianic_file *file, union vianic_call *call)
{
	return vianic_connect_peer_wait(file->ctx, &call->connect_peer_wait);
}

static int vianic_undo_connect_peer_wait(struct vianic_file *file, union vianic_call *call)
{
	return vianic_disconnect(file->ctx, call->connect_peer_wait.vi);
}

static int vianic_call_disconnect(struct vianic_file *file, union vianic_call *call)
{
	return vianic_disconnect(file->ctx, call->object.object);
}

static int vianic_call_discover(struct vianic_file *file, union vianic_call *call)
{
	return vianic_discover(file->ctx, &call->discover);
}

static int vianic_call_wait(struct vianic_file *file, union vianic_call *call)
{
	if (call->wait.reserved)
		return -EINVAL;
	return vianic_wait(file->ctx, &call->wait);
}

static int vianic_call_shut_down(struct vianic_file *file, union vianic_call *call)
{
	if (call->object.object)
		return -EINVAL;
	return vianic_context_shut_down(file->ctx);
}

/* --- The table of calls --- */

typedef int (*vianic_call_fn)(struct vianic_file *file, union vianic_call *call);

struct vianic_call_entry {
	unsigned int request;
	bool needs_context;
	u16 status_offset;
	vianic_call_fn call;
	/* Takes a success back that could not be reported. */
	vianic_call_fn undo;
};

#define VIANIC_CALL(_request, _struct, _call, _undo)				\
	[_IOC_NR(_request)] = {							\
		.request = _request,						\
		.needs_context = true,						\
		.status_offset = offsetof(struct _struct, status),		\
		.call = _call,							\
		.undo = _undo,							\
	}

static const struct vianic_call_entry vianic_calls[] = {
	[_IOC_NR(VIANIC_IOC_QUERY_NIC)] = {
		.request = VIANIC_IOC_QUERY_NIC,
		.status_offset = offsetof(struct vianic_nic_info, status),
		.call = vianic_call_query_nic,
	},
	[_IOC_NR(VIANIC_IOC_OPEN_CONTEXT)] = {
		.request = VIANIC_IOC_OPEN_CONTEXT,
		.status_offset = offsetof(struct vianic_open_context, status),
		.call = vianic_call_open_context,
	},
	VIANIC_CALL(VIANIC_IOC_CREATE_PTAG, vianic_object_call,
		    vianic_call_create_ptag, vianic_call_destroy_ptag),
	VIANIC_CALL(VIANIC_IOC_DESTROY_PTAG, vianic_object_call,
		    vianic_call_destroy_ptag, NULL),
	VIANIC_CALL(VIANIC_IOC_REGISTER_MEMORY, vianic_register_memory,
		    vianic_call_register_memory, vianic_undo_register_memory),
	VIANIC_CALL(VIANIC_IOC_DEREGISTER_MEMORY, vianic_deregister_memory,
		    vianic_call_deregister_memory, NULL),
	VIANIC_CALL(VIANIC_IOC_CREATE_CQ, vianic_object_call,
		    vianic_call_create_cq, vianic_call_destroy_cq),
	VIANIC_CALL(VIANIC_IOC_DESTROY_CQ, vianic_object_call,
		    vianic_call_destroy_cq, NULL),
	VIANIC_CALL(VIANIC_IOC_CREATE_VI, vianic_create_vi_call,
		    vianic_call_create_vi, vianic_undo_create_vi),
	VIANIC_CALL(VIANIC_IOC_DESTROY_VI, vianic_object_call,
		    vianic_call_destroy_vi, NULL),
	VIANIC_CALL(VIANIC_IOC_CONNECT_WAIT, vianic_connect_wait,
		    vianic_call_connect_wait, vianic_undo_connect_wait),
	VIANIC_CALL(VIANIC_IOC_CONNECT_ACCEPT, vianic_connect_answer,
		    vianic_call_connect_accept, NULL),
	VIANIC_CALL(VIANIC_IOC_CONNECT_REJECT, vianic_connect_answer,
		    vianic_call_connect_reject, NULL),
	VIANIC_CALL(VIANIC_IOC_CONNECT_REQUEST, vianic_connect_request,
		    vianic_call_connect_request, vianic_undo_connect_request),
	VIANIC_CALL(VIANIC_IOC_DISCONNECT, vianic_object_call,
		    vianic_call_disconnect, NULL),
	VIANIC_CALL(VIANIC_IOC_WAIT, vianic_wait, vianic_call_wait, NULL),
	VIANIC_CALL(VIANIC_IOC_SHUT_DOWN, vianic_object_call, vianic_call_shut_down, NULL),
	VIANIC_CALL(VIANIC_IOC_SET_MEMORY_ATTRIBUTES, vianic_set_memory_attributes,
		    vianic_call_set_memory_attributes, NULL),
	VIANIC_CALL(VIANIC_IOC_SET_VI_ATTRIBUTES, vianic_set_vi_attributes,
		    vianic_call_set_vi_attributes, NULL),
	VIANIC_CALL(VIANIC_IOC_CONNECT_PEER_REQUEST, vianic_connect_request,
		    vianic_call_connect_peer_request, vianic_undo_connect_request),
	VIANIC_CALL(VIANIC_IOC_CONNECT_PEER_WAIT, vianic_connect_peer_wait,
		    vianic_call_connect_peer_wait, vianic_undo_connect_peer_wait),
	VIANIC_CALL(VIANIC_IOC_DISCOVER, vianic_discover_nics, vianic_call_discover, NULL),
};

/* A file may call if the card lives and has not been reset since the file's context was made. */
static int vianic_may_call(struct vianic_file *file, const struct vianic_call_entry *entry)
{
	/* Pairs with the store of OPEN_CONTEXT. */
	struct vianic_context *ctx = smp_load_acquire(&file->ctx);

	if (!vianic_nic_is_live(file->nic) || (ctx && READ_ONCE(ctx->dead)))
		return -ENODEV;
	return entry->needs_context && !ctx ? -ENXIO : 0;
}

static long vianic_ioctl(struct file *filp, unsigned int request, unsigned long arg)
{
	struct vianic_file *file = filp->private_data;
	void __user *user = (void __user *)arg;
	const struct vianic_call_entry *entry;
	union vianic_call call;
	unsigned int nr = _IOC_NR(request);
	int status;

	if (nr >= ARRAY_SIZE(vianic_calls))
		return -ENOTTY;
	entry = &vianic_calls[array_index_nospec(nr, ARRAY_SIZE(vianic_calls))];
	if (!entry->call || entry->request != request)
		return -ENOTTY;
	atomic64_inc(&file->nic->ioctls);
	status = vianic_may_call(file, entry);
	if (status)
		return status;
	if (copy_from_user(&call, user, _IOC_SIZE(request)))
		return -EFAULT;
	status = entry->call(file, &call);
	if (status < 0)
		return status;
	*(u32 *)((u8 *)&call + entry->status_offset) = status;
	if (copy_to_user(user, &call, _IOC_SIZE(request))) {
		if (status == VIANIC_STATUS_SUCCESS && entry->undo)
			entry->undo(file, &call);
		return -EFAULT;
	}
	return 0;
}

static int vianic_open(struct inode *inode, struct file *filp)
{
	struct vianic_nic *nic = container_of(filp->private_data, struct vianic_nic, misc);
	struct vianic_file *file;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	/* The misc device keeps the card until this returns, the file from then on. */
	vianic_nic_get(nic);
	file->nic = nic;
	file->filp = filp;
	mutex_init(&file->lock);
	mutex_lock(&nic->files_lock);
	list_add_tail(&file->node, &nic->files);
	mutex_unlock(&nic->files_lock);
	filp->private_data = file;
	return nonseekable_open(inode, filp);
}

static int vianic_release(struct inode *inode, struct file *filp)
{
	struct vianic_file *file = filp->private_data;
	struct vianic_nic *nic = file->nic;

	mutex_lock(&nic->files_lock);
	list_del(&file->node);
	mutex_unlock(&nic->files_lock);
	if (file->ctx)
		vianic_context_release(file->ctx);
	kfree(file);
	vianic_nic_put(nic);
	return 0;
}

const struct file_operations vianic_fops = {
	.owner = THIS_MODULE,
	.open = vianic_open,
	.release = vianic_release,
	.unlocked_ioctl = vianic_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vianic_mmap,
};
