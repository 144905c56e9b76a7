/* The error callback. */
#include <string.h>

#include "suite.h"

static void bad_calls(struct side *side)
{
	IS(side, VipErrorCallback(NULL, side, error_handler), VIP_INVALID_PARAMETER);
	IS(side, VipErrorCallback(side, side, error_handler), VIP_INVALID_PARAMETER);
	OK(side, VipErrorCallback(side->nic, NULL, NULL));
	OK(side, VipErrorCallback(side->nic, side, error_handler));
}

/* A descriptor outside of registered memory. */
static void post_descriptor(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *outside = new_memory(side, 128, 64);
	VIP_ERROR_DESCRIPTOR error;
	VIP_RETURN code;

	if (side->role == SECOND) {
		connect_vi(side, vi);
		await_error(side, VIP_ERROR_CONN_LOST);
		return;
	}
	descriptor(side, 1);
	connect_vi(side, vi);
	code = SEEN(side, VipPostSend(vi, outside, side->descriptors.handle));
	if (code == VIP_INVALID_PARAMETER) {
		OK(side, VipDisconnect(vi));
		return;
	}
	IS(side, code, VIP_SUCCESS);
	error = await_error(side, VIP_ERROR_POST_DESC);
	CHECK(side, error.ResourceCode == VIP_RESOURCE_DESCRIPTOR && error.ViHandle == vi &&
			    error.DescriptorPtr == outside);
	tolerate(side, VIP_ERROR_CONN_LOST);
	OK(side, VipDisconnect(vi));
}

static void post_stale(struct side *side)
{
	struct buffer memory = new_buffer(side, 128, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_RETURN code;

	OK(side, VipDeregisterMem(side->nic, memory.bytes, memory.handle));
	code = SEEN(side, VipPostRecv(vi, (VIP_DESCRIPTOR *)(void *)memory.bytes, memory.handle));
	if (code == VIP_INVALID_PARAMETER)
		return;
	IS(side, code, VIP_SUCCESS);
	await_error(side, VIP_ERROR_POST_DESC);
}

/* The memory of a descriptor goes while it is posted: its completion cannot be written. */
static void completion(struct side *side)
{
	struct buffer memory = new_buffer(side, 128, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it = (VIP_DESCRIPTOR *)(void *)memory.bytes;

	if (side->role == FIRST) {
		it = descriptor(side, 1);
		connect_vi(side, vi);
		meet(side);
		post(side, vi, SENDS, it);
		finish(side, vi, SENDS, it);
		meet(side);
	} else {
		OK(side, VipPostRecv(vi, it, memory.handle));
		connect_vi(side, vi);
		OK(side, VipDeregisterMem(side->nic, memory.bytes, memory.handle));
		meet(side);
		CHECK(side, await_error(side, VIP_ERROR_COMP_PROT).ViHandle == vi);
		meet(side);
	}
	OK(side, VipDisconnect(vi));
	tolerate(side, VIP_ERROR_CONN_LOST);
	meet(side);
}

/* The side that leaves hears nothing, the other hears once. */
static void lost_once(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_ERROR_DESCRIPTOR error;

	connect_vi(side, vi);
	if (side->role == FIRST) {
		OK(side, VipDisconnect(vi));
		OK(side, VipDestroyVi(vi));
	} else {
		error = await_error(side, VIP_ERROR_CONN_LOST);
		CHECK(side, error.ViHandle == vi && error.ResourceCode == VIP_RESOURCE_VI &&
				    error.NicHandle == side->nic);
		CHECK(side, state_of(side, vi) == VIP_STATE_ERROR);
	}
	meet(side);
}

/* The peer's NIC handle is closed: as if its process had ended. */
static void peer_closes(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_NIC_HANDLE nic = side->nic;

	connect_vi(side, vi);
	if (side->role == FIRST) {
		side->nic = NULL;
		OK(side, VipCloseNic(nic));
	} else {
		CHECK(side, await_error(side, VIP_ERROR_CONN_LOST).ViHandle == vi);
		becomes(side, vi, VIP_STATE_ERROR);
	}
	meet(side);
}

/* Handlers may call VIPL. */
static VIP_VI_HANDLE disconnected;

static void disconnecting_handler(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
	if (VipDisconnect(error->ViHandle) == VIP_SUCCESS)
		disconnected = error->ViHandle;
	error_handler(context, error);
}

static void handler_calls(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	if (side->role == SECOND)
		OK(side, VipErrorCallback(side->nic, side, disconnecting_handler));
	connect_vi(side, vi);
	if (side->role == FIRST) {
		OK(side, VipDisconnect(vi));
	} else {
		await_error(side, VIP_ERROR_CONN_LOST);
		CHECK(side, disconnected == vi);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	}
	meet(side);
}

/* Without a handler nobody is called. */
static void no_handler(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	if (side->role == SECOND)
		OK(side, VipErrorCallback(side->nic, NULL, NULL));
	connect_vi(side, vi);
	if (side->role == FIRST)
		OK(side, VipDisconnect(vi));
	else
		becomes(side, vi, VIP_STATE_ERROR);
	meet(side);
}

static const struct test tests[] = {
	{ "a_handler_is_set_and_taken_away", "VG:viperrorcallback",
	  "VipErrorCallback:VIP_SUCCESS VipErrorCallback:VIP_INVALID_PARAMETER", ONCE, bad_calls, NULL },
	{ "a_descriptor_outside_of_registered_memory", "VG:viperrorcallback", "error:POST_DESC", RELIABLE,
	  post_descriptor, post_descriptor },
	{ "a_descriptor_in_deregistered_memory", "VG:viperrorcallback", "error:POST_DESC", EACH, post_stale, NULL },
	{ "a_descriptor_loses_its_memory", "M:m", "error:COMP_PROT", EACH, completion, completion },
	{ "a_lost_connection_is_told_once_to_the_one_left", "C:mpich-nt C:iometer",
	  "error:CONN_LOST state:Connected-Error", EACH, lost_once, lost_once },
	{ "a_closed_nic_ends_its_connections", "D C:mpich-nt", "error:CONN_LOST VipCloseNic:VIP_SUCCESS", EACH,
	  peer_closes, peer_closes },
	{ "a_handler_may_call", "C:armci D", "error:CONN_LOST VipDisconnect:VIP_SUCCESS", ONCE, handler_calls,
	  handler_calls },
	{ "no_handler_no_call", "VG:viperrorcallback", "VipErrorCallback:VIP_SUCCESS", ONCE, no_handler, no_handler },
};

const struct group error_group = GROUP("error", NULL, tests);
