/* Changing the attributes of VIs and of registered memory. */
#include <string.h>

#include "suite.h"

#define SIZE 1000UL

static VIP_PROTECTION_HANDLE new_tag(struct side *side)
{
	VIP_PROTECTION_HANDLE tag = NULL;

	OK(side, VipCreatePtag(side->nic, &tag));
	return tag;
}

static int reads(const struct side *side)
{
	return (side->attributes.RDMAReadSupport & side->level) != 0;
}

/* Memory */

static void bad_memory_calls(struct side *side)
{
	VIP_MEM_ATTRIBUTES attributes = { NULL, VIP_TRUE, VIP_FALSE }, found;
	struct buffer buffer = new_buffer(side, SIZE, NULL);
	VIP_PROTECTION_HANDLE gone = new_tag(side);
	VIP_NIC_HANDLE nic = side->nic, other;

	IS(side, VipSetMemAttributes(NULL, buffer.bytes, buffer.handle, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipSetMemAttributes(nic, buffer.bytes, buffer.handle, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipSetMemAttributes(nic, buffer.bytes, buffer.handle + 1, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipSetMemAttributes(nic, buffer.bytes, 0, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipSetMemAttributes(nic, buffer.bytes + SIZE, buffer.handle, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipSetMemAttributes(nic, buffer.bytes - 1, buffer.handle, &attributes), VIP_INVALID_PARAMETER);
	OK(side, VipOpenNic(side->nic_name, &other));
	IS(side, VipSetMemAttributes(other, buffer.bytes, buffer.handle, &attributes), VIP_INVALID_PARAMETER);
	OK(side, VipCloseNic(other));
	OK(side, VipDestroyPtag(nic, gone));
	attributes.Ptag = gone;
	IS(side, VipSetMemAttributes(nic, buffer.bytes, buffer.handle, &attributes), VIP_INVALID_PTAG);
	/* Nothing has changed. */
	OK(side, VipQueryMem(nic, buffer.bytes, buffer.handle, &found));
	CHECK(side, found.Ptag == NULL && !found.EnableRdmaWrite && !found.EnableRdmaRead);
	OK(side, VipDeregisterMem(nic, buffer.bytes, buffer.handle));
	attributes.Ptag = NULL;
	IS(side, VipSetMemAttributes(nic, buffer.bytes, buffer.handle, &attributes), VIP_INVALID_PARAMETER);
}

static void memory_is_told(struct side *side)
{
	struct buffer buffer = new_buffer(side, SIZE, NULL);
	VIP_MEM_ATTRIBUTES attributes = { NULL, VIP_TRUE, VIP_FALSE }, found;

	attributes.Ptag = new_tag(side);
	/* Any address in the region. */
	OK(side, VipSetMemAttributes(side->nic, buffer.bytes + SIZE - 1, buffer.handle, &attributes));
	OK(side, VipQueryMem(side->nic, buffer.bytes, buffer.handle, &found));
	CHECK(side, found.Ptag == attributes.Ptag && found.EnableRdmaWrite && !found.EnableRdmaRead);
	/* The region has its tag, and no other. */
	IS(side, VipDestroyPtag(side->nic, attributes.Ptag), VIP_ERROR_RESOURCE);
	found.Ptag = NULL;
	OK(side, VipSetMemAttributes(side->nic, buffer.bytes, buffer.handle, &found));
	OK(side, VipDestroyPtag(side->nic, attributes.Ptag));
}

/* The second opens its memory to its peer, and closes it again. */
static void memory_opens(struct side *side, VIP_UINT16 operation)
{
	VIP_MEM_ATTRIBUTES open = { NULL, VIP_FALSE, VIP_FALSE }, closed = { NULL, VIP_FALSE, VIP_FALSE };
	struct buffer buffer = new_buffer(side, SIZE, NULL);
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct {
		VIP_UINT64 address;
		VIP_MEM_HANDLE handle;
	} ours, theirs;
	VIP_DESCRIPTOR *it;
	VIP_UINT32 status;
	VIP_VI_HANDLE vi;

	memset(&ours, 0, sizeof(ours));
	open.EnableRdmaWrite = operation == VIP_CONTROL_OP_RDMAWRITE;
	open.EnableRdmaRead = operation == VIP_CONTROL_OP_RDMAREAD;
	attributes.EnableRdmaWrite = VIP_TRUE;
	attributes.EnableRdmaRead = reads(side);
	vi = new_vi_with(side, &attributes, NULL, NULL);
	ours.address = (VIP_UINT64)(size_t)buffer.bytes;
	ours.handle = buffer.handle;
	connect_vi(side, vi);
	if (side->role == SECOND) {
		memset(buffer.bytes, 2, SIZE);
		OK(side, VipSetMemAttributes(side->nic, buffer.bytes, buffer.handle, &open));
		trade(side, &ours, &theirs, sizeof(ours));
		meet(side);
		OK(side, VipSetMemAttributes(side->nic, buffer.bytes, buffer.handle, &closed));
		buffer.bytes[0] = 2;
		meet(side);
		await_error(side, operation == VIP_CONTROL_OP_RDMAREAD ? VIP_ERROR_RDMAR_PROT : VIP_ERROR_RDMAW_PROT);
		CHECK(side, buffer.bytes[0] == 2);
	} else {
		memset(buffer.bytes, 1, SIZE);
		trade(side, &ours, &theirs, sizeof(ours));
		it = rdma(side, 1, operation, &buffer, 0, SIZE, theirs.address, theirs.handle);
		post(side, vi, SENDS, it);
		succeed(side, vi, SENDS, it);
		meet(side);
		meet(side);
		it = rdma(side, 1, operation, &buffer, 0, SIZE, theirs.address, theirs.handle);
		post(side, vi, SENDS, it);
		status = finish(side, vi, SENDS, it);
		if (side->level == VIP_SERVICE_RELIABLE_RECEPTION || operation == VIP_CONTROL_OP_RDMAREAD)
			CHECK(side, status & VIP_STATUS_RDMA_PROT_ERROR);
	}
	meet(side);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void memory_opens_to_writes(struct side *side)
{
	memory_opens(side, VIP_CONTROL_OP_RDMAWRITE);
}

static void memory_opens_to_reads(struct side *side)
{
	if (!reads(side))
		skip(side, "this NIC does not read by RDMA at this level");
	memory_opens(side, VIP_CONTROL_OP_RDMAREAD);
}

/* A region goes with a VI once it has its tag, and no longer when it has another. */
static void memory_changes_tags(struct side *side)
{
	VIP_MEM_ATTRIBUTES ours = { 0 }, others = { 0 };
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct buffer buffer;
	VIP_VI_HANDLE a, b = new_vi(side);
	VIP_DESCRIPTOR *it;

	ours.Ptag = new_tag(side);
	others.Ptag = new_tag(side);
	buffer = new_buffer(side, SIZE, &others);
	attributes.Ptag = ours.Ptag;
	a = new_vi_with(side, &attributes, NULL, NULL);
	post(side, b, RECEIVES, message(side, 1, &buffer, 0, SIZE));
	connect_own(side, a, b);
	OK(side, VipSetMemAttributes(side->nic, buffer.bytes, buffer.handle, &ours));
	it = message(side, 2, &buffer, 0, SIZE / 2);
	post(side, a, SENDS, it);
	succeed(side, a, SENDS, it);
	OK(side, VipSetMemAttributes(side->nic, buffer.bytes, buffer.handle, &others));
	it = message(side, 2, &buffer, 0, SIZE / 2);
	post(side, a, SENDS, it);
	CHECK(side, finish(side, a, SENDS, it) & VIP_STATUS_PROTECTION_ERROR);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* VIs */

/* Every code leaves the attributes as they were. */
static void bad_vi_calls(struct side *side)
{
	VIP_VI_ATTRIBUTES good = vi_attributes(side), bad, found;
	VIP_PROTECTION_HANDLE gone = new_tag(side);
	VIP_VI_HANDLE vi;
	VIP_BOOLEAN sends_empty, receives_empty;
	VIP_VI_STATE state;

	good.MaxTransferSize = 12345;
	vi = new_vi_with(side, &good, NULL, NULL);
	IS(side, VipSetViAttributes(NULL, &good), VIP_INVALID_PARAMETER);
	IS(side, VipSetViAttributes(&vi, &good), VIP_INVALID_PARAMETER);
	IS(side, VipSetViAttributes(vi, NULL), VIP_INVALID_PARAMETER);
	bad = good;
	bad.ReliabilityLevel = 3;
	IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_RELIABILITY_LEVEL);
	bad.ReliabilityLevel = 0;
	IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_RELIABILITY_LEVEL);
	bad = good;
	bad.MaxTransferSize = side->attributes.MaxTransferSize + 1;
	IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_MTU);
	bad = good;
	bad.QoS = &bad;
	IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_QOS);
	OK(side, VipDestroyPtag(side->nic, gone));
	bad = good;
	bad.Ptag = gone;
	IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_PTAG);
	if (!(side->attributes.RDMAReadSupport & VIP_SERVICE_UNRELIABLE)) {
		bad = good;
		bad.ReliabilityLevel = VIP_SERVICE_UNRELIABLE;
		bad.EnableRdmaRead = VIP_TRUE;
		IS(side, VipSetViAttributes(vi, &bad), VIP_INVALID_RDMAREAD);
	}
	OK(side, VipQueryVi(vi, &state, &found, &sends_empty, &receives_empty));
	CHECK(side, found.ReliabilityLevel == good.ReliabilityLevel && found.MaxTransferSize == 12345 &&
			    found.Ptag == NULL && found.QoS == NULL && !found.EnableRdmaRead);
	OK(side, VipDestroyVi(vi));
	IS(side, VipSetViAttributes(vi, &good), VIP_INVALID_PARAMETER);
}

static void vi_is_told(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side), found;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_BOOLEAN sends_empty, receives_empty;
	VIP_DESCRIPTOR *done;
	VIP_VI_STATE state;

	post(side, vi, RECEIVES, descriptor(side, 1));
	attributes.MaxTransferSize = 4321;
	attributes.EnableRdmaWrite = VIP_TRUE;
	attributes.Ptag = new_tag(side);
	OK(side, VipSetViAttributes(vi, &attributes));
	OK(side, VipQueryVi(vi, &state, &found, &sends_empty, &receives_empty));
	CHECK(side, found.MaxTransferSize == 4321 && found.EnableRdmaWrite && found.Ptag == attributes.Ptag);
	/* The receive stays. */
	CHECK(side, state == VIP_STATE_IDLE && receives_empty == VIP_FALSE);
	IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
	IS(side, VipDestroyPtag(side->nic, attributes.Ptag), VIP_ERROR_RESOURCE);
	found.Ptag = NULL;
	OK(side, VipSetViAttributes(vi, &found));
	OK(side, VipDestroyPtag(side->nic, attributes.Ptag));
}

static void asked(struct side *side)
{
	union address local = own_address(side, "me"), remote = own_address(side, "x");
	unsigned long limit = now_ms() + LIMIT;
	VIP_VI_ATTRIBUTES attributes;
	VIP_RETURN code;

	do
		code = VipConnectRequest(side->argument, &local.net, &remote.net, LIMIT, &attributes);
	while (code == VIP_NO_MATCH && now_ms() < limit);
	IS(side, code, VIP_REJECT);
}

static void only_idle(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side), theirs;
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side), c = new_vi(side);
	VIP_CONN_HANDLE connection;

	connect_own(side, a, b);
	IS(side, VipSetViAttributes(a, &attributes), VIP_INVALID_STATE);
	OK(side, VipDisconnect(a));
	OK(side, VipSetViAttributes(a, &attributes));
	await_error(side, VIP_ERROR_CONN_LOST);
	IS(side, VipSetViAttributes(b, &attributes), VIP_INVALID_STATE);
	OK(side, VipDisconnect(b));
	OK(side, VipSetViAttributes(b, &attributes));
	in_thread(side, asked, c);
	connection = await_request(side, "x", &theirs);
	IS(side, VipSetViAttributes(c, &attributes), VIP_INVALID_STATE);
	OK(side, VipConnectReject(connection));
	join(side);
	OK(side, VipSetViAttributes(c, &attributes));
}

/* A VI is made to fit a request, and is then what it was made. */
static void made_to_fit(struct side *side)
{
	VIP_VI_ATTRIBUTES fitting = vi_attributes(side), theirs;
	struct buffer buffer = new_buffer(side, SIZE, NULL);
	VIP_CONN_HANDLE connection;
	VIP_DESCRIPTOR *it;
	VIP_VI_HANDLE vi;

	fitting.MaxTransferSize = SIZE / 2;
	if (side->role == FIRST) {
		vi = new_vi_with(side, &fitting, NULL, NULL);
		connect_vi(side, vi);
		await_error(side, VIP_ERROR_CONN_LOST);
		return;
	}
	vi = new_vi(side);
	connection = await_request(side, "c", &theirs);
	IS(side, VipConnectAccept(connection, vi), VIP_INVALID_MTU);
	theirs = vi_attributes(side);
	theirs.MaxTransferSize = SIZE / 2;
	theirs.ReliabilityLevel = side->level == VIP_SERVICE_UNRELIABLE ? VIP_SERVICE_RELIABLE_DELIVERY :
									  VIP_SERVICE_UNRELIABLE;
	OK(side, VipSetViAttributes(vi, &theirs));
	IS(side, VipConnectAccept(connection, vi), VIP_INVALID_RELIABILITY_LEVEL);
	OK(side, VipSetViAttributes(vi, &fitting));
	OK(side, VipConnectAccept(connection, vi));
	meet(side);
	/* Longer than it may be now. */
	it = message(side, 1, &buffer, 0, SIZE / 2 + 1);
	post(side, vi, SENDS, it);
	CHECK(side, finish(side, vi, SENDS, it) & VIP_STATUS_LENGTH_ERROR);
	if (side->level != VIP_SERVICE_UNRELIABLE)
		await_error(side, VIP_ERROR_CONN_LOST);
	OK(side, VipDisconnect(vi));
}

/* A receive that is posted is subject to the tag that the VI has when the message comes. */
static void vi_changes_tags(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_MEM_ATTRIBUTES tagged = { 0 };
	struct buffer buffer;
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_DESCRIPTOR *send, *receive;
	int fits;

	tagged.Ptag = new_tag(side);
	buffer = new_buffer(side, SIZE, &tagged);
	for (fits = 1; fits >= 0; fits--) {
		receive = message(side, 1, &buffer, 0, SIZE);
		post(side, b, RECEIVES, receive);
		attributes.Ptag = fits ? tagged.Ptag : new_tag(side);
		OK(side, VipSetViAttributes(b, &attributes));
		connect_own(side, a, b);
		send = message(side, 2, &buffer, 0, SIZE / 2);
		post(side, a, SENDS, send);
		finish(side, a, SENDS, send);
		if (fits)
			succeed(side, b, RECEIVES, receive);
		else
			CHECK(side, finish(side, b, RECEIVES, receive) & VIP_STATUS_PROTECTION_ERROR);
		OK(side, VipDisconnect(a));
		OK(side, VipDisconnect(b));
	}
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static const struct test tests[] = {
	{ "bad_attributes_of_memory_are_refused", "M:m",
	  "VipSetMemAttributes:VIP_INVALID_PARAMETER VipSetMemAttributes:VIP_INVALID_PTAG", ONCE, bad_memory_calls, NULL },
	{ "new_attributes_of_memory_are_told", "M:m", "VipSetMemAttributes:VIP_SUCCESS", ONCE, memory_is_told, NULL },
	{ "memory_is_opened_to_writes_and_closed", "M:m",
	  "VipSetMemAttributes:VIP_SUCCESS error:RDMAW_PROT status:RDMA_PROT_ERROR@reception", EACH,
	  memory_opens_to_writes, memory_opens_to_writes },
	{ "memory_is_opened_to_reads_and_closed", "M:m",
	  "VipSetMemAttributes:VIP_SUCCESS error:RDMAR_PROT status:RDMA_PROT_ERROR", RELIABLE, memory_opens_to_reads,
	  memory_opens_to_reads },
	{ "memory_changes_its_tag", "M:m", "VipSetMemAttributes:VIP_SUCCESS status:PROTECTION_ERROR", EACH,
	  memory_changes_tags, NULL },
	{ "bad_attributes_of_vis_have_their_codes", "M:m",
	  "VipSetViAttributes:VIP_INVALID_PARAMETER VipSetViAttributes:VIP_INVALID_RELIABILITY_LEVEL "
	  "VipSetViAttributes:VIP_INVALID_MTU VipSetViAttributes:VIP_INVALID_QOS VipSetViAttributes:VIP_INVALID_PTAG "
	  "VipSetViAttributes:VIP_INVALID_RDMAREAD",
	  ONCE, bad_vi_calls, NULL },
	{ "new_attributes_of_vis_are_told", "M:m", "VipSetViAttributes:VIP_SUCCESS", EACH, vi_is_told, NULL },
	{ "only_an_idle_vi_changes", "M:m", "VipSetViAttributes:VIP_SUCCESS VipSetViAttributes:VIP_INVALID_STATE", EACH,
	  only_idle, NULL },
	{ "a_vi_is_made_to_fit_a_request", "M:m VG:vipconnectaccept",
	  "VipSetViAttributes:VIP_SUCCESS VipConnectAccept:VIP_SUCCESS VipConnectAccept:VIP_INVALID_MTU "
	  "VipConnectAccept:VIP_INVALID_RELIABILITY_LEVEL status:LENGTH_ERROR",
	  EACH, made_to_fit, made_to_fit },
	{ "receives_are_subject_to_the_new_tag", "D", "VipSetViAttributes:VIP_SUCCESS status:PROTECTION_ERROR", EACH,
	  vi_changes_tags, NULL },
};

const struct group attribute_group = GROUP("attribute", NULL, tests);
