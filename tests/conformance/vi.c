/* VIs: making, asking, destroying. */
#include <string.h>

#include "suite.h"

static void creating(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side), found;
	VIP_BOOLEAN sends_empty = 7, receives_empty = 7;
	VIP_VI_STATE state;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE vi;
	int i;

	OK(side, VipCreateCQ(side->nic, 4, &cq));
	attributes.MaxTransferSize = 32000;
	attributes.EnableRdmaWrite = 4; /* any true value */
	for (i = 0; i < 4; i++) {
		vi = new_vi_with(side, &attributes, i & 1 ? cq : NULL, i & 2 ? cq : NULL);
		OK(side, VipQueryVi(vi, &state, &found, &sends_empty, &receives_empty));
		CHECK(side, state == VIP_STATE_IDLE && sends_empty == VIP_TRUE && receives_empty == VIP_TRUE);
		CHECK(side, found.ReliabilityLevel == side->level && found.MaxTransferSize == 32000 &&
				    found.EnableRdmaWrite == VIP_TRUE && found.EnableRdmaRead == VIP_FALSE &&
				    found.QoS == NULL && found.Ptag == NULL);
		OK(side, VipDestroyVi(vi));
		IS(side, VipDestroyVi(vi), VIP_INVALID_PARAMETER);
		saw_states(side, "Idle-destroy");
	}
	OK(side, VipDestroyCQ(cq));
}

static void bad_attributes(struct side *side)
{
	VIP_VI_ATTRIBUTES good = vi_attributes(side), bad;
	VIP_PROTECTION_HANDLE gone;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE vi;

	IS(side, VipCreateVi(NULL, &good, NULL, NULL, &vi), VIP_INVALID_PARAMETER);
	IS(side, VipCreateVi(side->nic, NULL, NULL, NULL, &vi), VIP_INVALID_PARAMETER);
	IS(side, VipCreateVi(side->nic, &good, NULL, NULL, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipCreateVi(side->nic, &good, side, NULL, &vi), VIP_INVALID_PARAMETER);
	IS(side, VipCreateVi(side->nic, &good, NULL, side, &vi), VIP_INVALID_PARAMETER);
	OK(side, VipCreateCQ(side->nic, 4, &cq));
	OK(side, VipDestroyCQ(cq));
	IS(side, VipCreateVi(side->nic, &good, cq, NULL, &vi), VIP_INVALID_PARAMETER);
	bad = good;
	bad.ReliabilityLevel = 3;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_RELIABILITY_LEVEL);
	bad.ReliabilityLevel = 0;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_RELIABILITY_LEVEL);
	bad.ReliabilityLevel = 8;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_RELIABILITY_LEVEL);
	bad = good;
	bad.MaxTransferSize = side->attributes.MaxTransferSize + 1;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_MTU);
	bad.MaxTransferSize = (VIP_ULONG)-1;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_MTU);
	bad = good;
	bad.QoS = &bad;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_QOS);
	OK(side, VipCreatePtag(side->nic, &gone));
	OK(side, VipDestroyPtag(side->nic, gone));
	bad = good;
	bad.Ptag = gone;
	IS(side, VipCreateVi(side->nic, &bad, NULL, NULL, &vi), VIP_INVALID_PTAG);
}

static void rdma_read_flag(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_VI_HANDLE vi;

	attributes.EnableRdmaRead = VIP_TRUE;
	if (side->attributes.RDMAReadSupport & side->level)
		OK(side, VipCreateVi(side->nic, &attributes, NULL, NULL, &vi));
	else
		IS(side, VipCreateVi(side->nic, &attributes, NULL, NULL, &vi), VIP_INVALID_RDMAREAD);
}

static void as_many_as_said(struct side *side)
{
	unsigned long i, count = side->attributes.MaxVI;
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_VI_HANDLE *vis, vi;

	if (count > 4096)
		skip(side, "the NIC has more VIs than are worth a test");
	vis = new_memory(side, count * sizeof(vi), 16);
	for (i = 0; i < count; i++)
		vis[i] = new_vi_with(side, &attributes, NULL, NULL);
	IS(side, VipCreateVi(side->nic, &attributes, NULL, NULL, &vi), VIP_ERROR_RESOURCE);
	while (i > 0)
		OK(side, VipDestroyVi(vis[--i]));
	OK(side, VipDestroyVi(new_vi(side)));
}

static void querying(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_BOOLEAN sends_empty, receives_empty;
	VIP_VI_STATE state;

	post(side, vi, RECEIVES, descriptor(side, 1));
	OK(side, VipQueryVi(vi, &state, &attributes, &sends_empty, &receives_empty));
	CHECK(side, sends_empty == VIP_TRUE && receives_empty == VIP_FALSE);
	OK(side, VipDestroyVi(vi));
	IS(side, VipQueryVi(vi, &state, &attributes, &sends_empty, &receives_empty), VIP_INVALID_PARAMETER);
	IS(side, VipQueryVi(NULL, &state, &attributes, &sends_empty, &receives_empty), VIP_INVALID_PARAMETER);
}

/* Real programs destroy VIs with receives posted. */
static void destroying_with_receives(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	int i;

	for (i = 1; i < 10; i++)
		post(side, vi, RECEIVES, descriptor(side, (unsigned int)i));
	OK(side, VipDestroyVi(vi));
}

static void garbage(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	IS(side, VipDestroyVi(NULL), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyVi(&vi), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyVi(side->nic), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyVi((VIP_VI_HANDLE)(size_t)-1), VIP_INVALID_PARAMETER);
	IS(side, VipDisconnect(NULL), VIP_INVALID_PARAMETER);
	IS(side, VipDisconnect(&vi), VIP_INVALID_PARAMETER);
	OK(side, VipDestroyVi(vi));
	IS(side, VipDisconnect(vi), VIP_INVALID_PARAMETER);
}

static void destroying_connected(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	connect_vi(side, vi);
	if (side->role == FIRST) {
		IS(side, VipDestroyVi(vi), VIP_ERROR_RESOURCE);
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
		OK(side, VipDisconnect(vi));
		OK(side, VipDestroyVi(vi));
	} else {
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
		IS(side, VipDestroyVi(vi), VIP_ERROR_RESOURCE);
		OK(side, VipDisconnect(vi));
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
		OK(side, VipDestroyVi(vi));
	}
}

static const struct test tests[] = {
	{ "a_vi_begins_idle_with_its_attributes", "M:m C:iometer C:pm2-mad3",
	  "VipCreateVi:VIP_SUCCESS VipQueryVi:VIP_SUCCESS VipDestroyVi:VIP_SUCCESS VipDestroyVi:VIP_INVALID_PARAMETER "
	  "state:create-Idle state:Idle-destroy",
	  EACH, creating, NULL },
	{ "bad_attributes_have_their_codes", "M:m",
	  "VipCreateVi:VIP_INVALID_PARAMETER VipCreateVi:VIP_INVALID_RELIABILITY_LEVEL VipCreateVi:VIP_INVALID_MTU "
	  "VipCreateVi:VIP_INVALID_QOS VipCreateVi:VIP_INVALID_PTAG",
	  ONCE, bad_attributes, NULL },
	{ "the_rdma_read_flag_needs_support", "M:m", "VipCreateVi:VIP_INVALID_RDMAREAD@unreliable VipCreateVi:VIP_SUCCESS@reliable", EACH, rdma_read_flag, NULL },
	{ "there_are_as_many_as_the_nic_says", "D", "VipCreateVi:VIP_ERROR_RESOURCE", ONCE, as_many_as_said, NULL },
	{ "queues_are_told_empty_or_not", "M:m", "VipQueryVi:VIP_SUCCESS VipQueryVi:VIP_INVALID_PARAMETER", ONCE,
	  querying, NULL },
	{ "an_idle_vi_goes_with_its_receives", "C:mplite C:pm2 D", "VipDestroyVi:VIP_SUCCESS", EACH,
	  destroying_with_receives, NULL },
	{ "handles_of_garbage_are_refused", "D", "VipDestroyVi:VIP_INVALID_PARAMETER VipDisconnect:VIP_INVALID_PARAMETER",
	  ONCE, garbage, NULL },
	{ "a_vi_that_is_not_idle_stays", "M:m", "VipDestroyVi:VIP_ERROR_RESOURCE state:Error-Idle", EACH,
	  destroying_connected, destroying_connected },
};

const struct group vi_group = GROUP("vi", NULL, tests);
