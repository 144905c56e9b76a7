/* A NIC that fails. Each test makes it fail, so that the next one needs it in order again. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

static void fail_nic(struct side *side)
{
	VIP_ERROR_DESCRIPTOR error;

	CHECK(side, system(side->fail_command) == 0);
	error = await_error(side, VIP_ERROR_CATASTROPHIC);
	CHECK(side, error.ResourceCode == VIP_RESOURCE_NIC);
	/* Connections may be told lost as well. */
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void ask(struct side *side)
{
	union address local = own_address(side, "me"), remote = own_address(side, "x");
	unsigned long limit = now_ms() + LIMIT;
	VIP_VI_ATTRIBUTES attributes;
	VIP_RETURN code;

	do
		code = SEEN(side, VipConnectRequest(side->argument, &local.net, &remote.net, VIP_INFINITE, &attributes));
	while (code == VIP_NO_MATCH && now_ms() < limit);
	IS(side, code, VIP_ERROR_RESOURCE);
}

/* VIs of each state, all with a receive posted. */
static void states(struct side *side)
{
	VIP_VI_HANDLE vis[4];
	VIP_DESCRIPTOR *receives[4];
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		vis[i] = new_vi(side);
		receives[i] = descriptor(side, 1 + i);
		post(side, vis[i], RECEIVES, receives[i]);
	}
	connect_own(side, vis[0], vis[1]);
	in_thread(side, ask, vis[2]);
	connection = await_request(side, "x", &attributes);
	CHECK(side, state_of(side, vis[0]) == VIP_STATE_CONNECTED && state_of(side, vis[1]) == VIP_STATE_CONNECTED);
	becomes(side, vis[2], VIP_STATE_CONNECT_PENDING);
	fail_nic(side);
	join(side);
	for (i = 0; i < 4; i++) {
		becomes(side, vis[i], VIP_STATE_ERROR);
		CHECK(side, finish(side, vis[i], RECEIVES, receives[i]) & VIP_STATUS_DESC_FLUSHED_ERROR);
		is_empty(side, vis[i], RECEIVES);
	}
	IS(side, VipConnectReject(connection), VIP_ERROR_RESOURCE);
	/* They can be got rid of as ever. */
	for (i = 0; i < 4; i++) {
		OK(side, VipDisconnect(vis[i]));
		CHECK(side, state_of(side, vis[i]) == VIP_STATE_IDLE);
		OK(side, VipDestroyVi(vis[i]));
	}
}

static void calls(struct side *side)
{
	union address local = own_address(side, "x"), remote;
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct buffer buffer = new_buffer(side, 5000, NULL);
	VIP_NIC_HANDLE nic = side->nic, another;
	VIP_DESCRIPTOR *it = descriptor(side, 1);
	VIP_PROTECTION_HANDLE tag, other;
	VIP_CONN_HANDLE connection;
	VIP_MEM_HANDLE handle;
	VIP_CQ_HANDLE cq, other_cq;
	VIP_VI_HANDLE vi = new_vi(side), other_vi;
	VIP_MEM_ATTRIBUTES open = { NULL, VIP_TRUE, VIP_FALSE };
	VIP_AUTODISCOVERY_LIST nobody = { 1, NULL, 0 };
	VIP_BOOLEAN receive;
	VIP_RETURN code;

	OK(side, VipCreatePtag(nic, &tag));
	OK(side, VipCreateCQ(nic, 4, &cq));
	fail_nic(side);
	IS(side, VipCreatePtag(nic, &other), VIP_ERROR_RESOURCE);
	IS(side, VipDestroyPtag(nic, tag), VIP_ERROR_RESOURCE);
	IS(side, VipRegisterMem(nic, buffer.bytes, 5000, NULL, &handle), VIP_ERROR_RESOURCE);
	IS(side, VipDeregisterMem(nic, buffer.bytes, buffer.handle), VIP_ERROR_RESOURCE);
	IS(side, VipSetMemAttributes(nic, buffer.bytes, buffer.handle, &open), VIP_ERROR_RESOURCE);
	IS(side, VipQuerySystemManagementInfo(nic, VIP_SMI_AUTODISCOVERY, &nobody), VIP_ERROR_RESOURCE);
	IS(side, VipCreateVi(nic, &attributes, NULL, NULL, &other_vi), VIP_ERROR_RESOURCE);
	IS(side, VipCreateCQ(nic, 4, &other_cq), VIP_ERROR_RESOURCE);
	IS(side, VipCQDone(cq, &other_vi, &receive), VIP_ERROR_RESOURCE);
	IS(side, VipCQWait(cq, VIP_INFINITE, &other_vi, &receive), VIP_ERROR_RESOURCE);
	IS(side, VipConnectWait(nic, &local.net, VIP_INFINITE, &remote.net, &attributes, &connection),
	   VIP_ERROR_RESOURCE);
	IS(side, VipPostSend(vi, it, side->descriptors.handle), VIP_ERROR_RESOURCE);
	IS(side, VipPostRecv(vi, it, side->descriptors.handle), VIP_ERROR_RESOURCE);
	is_empty(side, vi, SENDS);
	is_empty(side, vi, RECEIVES);
	/* It is there and does not work, or is no longer there. */
	code = VipOpenNic(side->nic_name, &another);
	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_RESOURCE);
	side->nic = NULL;
	OK(side, VipCloseNic(nic));
	IS(side, VipCloseNic(nic), VIP_INVALID_PARAMETER);
}

static void wait_for_request(struct side *side)
{
	union address local = own_address(side, "never"), remote;
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	IS(side, VipConnectWait(side->nic, &local.net, VIP_INFINITE, &remote.net, &attributes, &connection),
	   VIP_ERROR_RESOURCE);
}

static void wait_for_entry(struct side *side)
{
	VIP_BOOLEAN receive;
	VIP_VI_HANDLE vi;

	IS(side, VipCQWait(side->argument, VIP_INFINITE, &vi, &receive), VIP_ERROR_RESOURCE);
}

static void wait_for_receive(struct side *side)
{
	VIP_DESCRIPTOR *done;

	IS(side, VipRecvWait(side->argument, VIP_INFINITE, &done), VIP_DESCRIPTOR_ERROR);
	CHECK(side, done != NULL && saw_status(side, done->CS.Status) & VIP_STATUS_DESC_FLUSHED_ERROR);
}

/* Infinite waits end, whether they have begun or not. */
static void waits(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_CQ_HANDLE cq;

	OK(side, VipCreateCQ(side->nic, 4, &cq));
	post(side, b, RECEIVES, descriptor(side, 1));
	connect_own(side, a, b);
	in_thread(side, wait_for_request, NULL);
	in_thread(side, wait_for_entry, cq);
	in_thread(side, wait_for_receive, b);
	fail_nic(side);
	join(side);
}

static void wait_for_peer(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;

	IS(side, VipConnectPeerWait(side->argument, &attributes), VIP_ERROR_RESOURCE);
}

static void peers(struct side *side)
{
	union address local = own_address(side, "a"), remote = own_address(side, "b");
	VIP_VI_HANDLE waiting = new_vi(side), polling = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;

	OK(side, VipConnectPeerRequest(waiting, &local.net, &remote.net, VIP_INFINITE));
	OK(side, VipConnectPeerRequest(polling, &local.net, &remote.net, VIP_INFINITE));
	CHECK(side, state_of(side, polling) == VIP_STATE_CONNECT_PENDING);
	in_thread(side, wait_for_peer, waiting);
	fail_nic(side);
	join(side);
	becomes(side, polling, VIP_STATE_ERROR);
	IS(side, VipConnectPeerDone(polling, &attributes), VIP_ERROR_RESOURCE);
	OK(side, VipDisconnect(polling));
	OK(side, VipDisconnect(waiting));
	OK(side, VipDestroyVi(polling));
	OK(side, VipDestroyVi(waiting));
}

static const struct test tests[] = {
	{ "vis_go_to_error_and_all_is_flushed", "M:m D",
	  "error:CATASTROPHIC state:Idle-Error state:ConnectPending-Error state:Connected-Error state:Error-Idle "
	  "status:DESC_FLUSHED_ERROR VipConnectRequest:VIP_ERROR_RESOURCE VipConnectReject:VIP_ERROR_RESOURCE",
	  EACH, states, NULL },
	{ "calls_fail", "M:m D",
	  "VipCreatePtag:VIP_ERROR_RESOURCE VipDestroyPtag:VIP_ERROR_RESOURCE VipRegisterMem:VIP_ERROR_RESOURCE "
	  "VipDeregisterMem:VIP_ERROR_RESOURCE VipCreateVi:VIP_ERROR_RESOURCE VipCreateCQ:VIP_ERROR_RESOURCE "
	  "VipCQDone:VIP_ERROR_RESOURCE VipCQWait:VIP_ERROR_RESOURCE VipConnectWait:VIP_ERROR_RESOURCE "
	  "VipSetMemAttributes:VIP_ERROR_RESOURCE VipQuerySystemManagementInfo:VIP_ERROR_RESOURCE "
	  "VipPostSend:VIP_ERROR_RESOURCE VipPostRecv:VIP_ERROR_RESOURCE "
	  "VipCloseNic:VIP_SUCCESS",
	  ONCE, calls, NULL },
	{ "waits_end", "D C:mpich-nt",
	  "error:CATASTROPHIC VipConnectWait:VIP_ERROR_RESOURCE VipCQWait:VIP_ERROR_RESOURCE "
	  "VipRecvWait:VIP_DESCRIPTOR_ERROR",
	  EACH, waits, NULL },
	{ "peers_are_not_waited_for", "D",
	  "error:CATASTROPHIC VipConnectPeerWait:VIP_ERROR_RESOURCE VipConnectPeerDone:VIP_ERROR_RESOURCE "
	  "state:ConnectPending-Error",
	  EACH, peers, NULL },
};

const struct group failure_group = GROUP("failure", "fail", tests);
