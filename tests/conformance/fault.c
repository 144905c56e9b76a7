/* Links with faults. Every message meets the fault that its group is about; connections are made and ended as ever. */
#include <string.h>

#include "suite.h"

#define SIZE 100000UL

/* The second role's memory. */
struct place {
	VIP_UINT64 address;
	VIP_MEM_HANDLE handle;
};

/* What there is on each side: a VI that allows RDMA, connected, and a buffer that is open to it. */
struct scene {
	VIP_VI_HANDLE vi;
	struct buffer buffer;
	struct place theirs;
	/* The second has posted it. */
	VIP_DESCRIPTOR *receive;
};

static struct scene set_up(struct side *side)
{
	VIP_MEM_ATTRIBUTES open = { NULL, VIP_TRUE, VIP_FALSE };
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct scene scene;
	struct place place;

	memset(&scene, 0, sizeof(scene));
	open.EnableRdmaRead = side->attributes.RDMAReadSupport != 0;
	attributes.EnableRdmaWrite = VIP_TRUE;
	attributes.EnableRdmaRead = (side->attributes.RDMAReadSupport & side->level) != 0;
	scene.buffer = new_buffer(side, SIZE, &open);
	scene.vi = new_vi_with(side, &attributes, NULL, NULL);
	if (side->role == SECOND) {
		scene.receive = message(side, 1, &scene.buffer, 0, SIZE);
		post(side, scene.vi, RECEIVES, scene.receive);
	}
	connect_vi(side, scene.vi);
	place.address = (VIP_UINT64)(size_t)scene.buffer.bytes;
	place.handle = scene.buffer.handle;
	trade(side, &place, &scene.theirs, sizeof(place));
	return scene;
}

static int is_reliable(const struct side *side)
{
	return side->level != VIP_SERVICE_UNRELIABLE;
}

/* The sender learns of the fault at the reliable levels only. */
static void judge_sender(struct side *side, const struct scene *scene, VIP_DESCRIPTOR *it)
{
	VIP_UINT32 status;

	post(side, scene->vi, SENDS, it);
	status = finish(side, scene->vi, SENDS, it);
	if (is_reliable(side)) {
		CHECK(side, (status & VIP_STATUS_ERROR_MASK) == VIP_STATUS_TRANSPORT_ERROR);
		becomes(side, scene->vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	} else {
		CHECK(side, (status & VIP_STATUS_ERROR_MASK) == 0);
		CHECK(side, state_of(side, scene->vi) == VIP_STATE_CONNECTED);
	}
	meet(side);
}

/* The VI of who should have got the message: its receive is flushed with the connection, or is still there. */
static void judge_receiver(struct side *side, const struct scene *scene)
{
	VIP_DESCRIPTOR *done;

	if (is_reliable(side)) {
		becomes(side, scene->vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
		CHECK(side, finish(side, scene->vi, RECEIVES, scene->receive) & VIP_STATUS_DESC_FLUSHED_ERROR);
		meet(side);
	} else {
		meet(side);
		IS(side, VipRecvWait(scene->vi, SHORT, &done), VIP_TIMEOUT);
		CHECK(side, state_of(side, scene->vi) == VIP_STATE_CONNECTED);
	}
}

/* The receive that the message took ends with `error`. */
static void judge_receive(struct side *side, const struct scene *scene, VIP_UINT32 error)
{
	VIP_UINT32 status = finish(side, scene->vi, RECEIVES, scene->receive);

	if ((status & VIP_STATUS_ERROR_MASK) != error)
		FAIL(side, "status %08x", (unsigned int)status);
	if (is_reliable(side)) {
		becomes(side, scene->vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	} else {
		CHECK(side, state_of(side, scene->vi) == VIP_STATE_CONNECTED);
	}
	meet(side);
}

/* The target of an RDMA write without immediate data gets `code`. */
static void judge_target(struct side *side, const struct scene *scene, VIP_ERROR_CODE code)
{
	VIP_ERROR_DESCRIPTOR error = await_error(side, code);

	CHECK(side, error.ViHandle == scene->vi && error.ResourceCode == VIP_RESOURCE_VI);
	judge_receiver(side, scene);
}

static VIP_DESCRIPTOR *send_of(struct side *side, const struct scene *scene)
{
	return message(side, 1, &scene->buffer, 0, SIZE);
}

static VIP_DESCRIPTOR *write_of(struct side *side, const struct scene *scene, VIP_UINT16 immediate)
{
	return rdma(side, 1, VIP_CONTROL_OP_RDMAWRITE | immediate, &scene->buffer, 0, SIZE, scene->theirs.address,
		    scene->theirs.handle);
}

static VIP_DESCRIPTOR *read_of(struct side *side, const struct scene *scene)
{
	return rdma(side, 1, VIP_CONTROL_OP_RDMAREAD, &scene->buffer, 0, SIZE, scene->theirs.address,
		    scene->theirs.handle);
}

static void failed_write(struct side *side, VIP_ERROR_CODE code)
{
	struct scene scene = set_up(side);

	if (side->role == FIRST)
		judge_sender(side, &scene, write_of(side, &scene, 0));
	else
		judge_target(side, &scene, code);
}

static void failed_immediate(struct side *side, VIP_UINT32 status)
{
	struct scene scene = set_up(side);

	if (side->role == FIRST)
		judge_sender(side, &scene, write_of(side, &scene, VIP_CONTROL_IMMEDIATE));
	else
		judge_receive(side, &scene, status);
}

/* Lost */

static void lost_send(struct side *side)
{
	struct scene scene = set_up(side);

	if (side->role == FIRST)
		judge_sender(side, &scene, send_of(side, &scene));
	else
		judge_receiver(side, &scene);
}

static void lost_write(struct side *side)
{
	struct scene scene = set_up(side);

	if (side->role == FIRST) {
		memset(scene.buffer.bytes, 1, SIZE);
		judge_sender(side, &scene, write_of(side, &scene, 0));
	} else {
		judge_receiver(side, &scene);
		CHECK(side, scene.buffer.bytes[0] == 0 && scene.buffer.bytes[SIZE - 1] == 0);
	}
}

/* Nothing that was posted behind a message that is lost arrives. */
static void lost_and_behind(struct side *side)
{
	struct scene scene = set_up(side);
	VIP_DESCRIPTOR *sends[4];
	unsigned int i;

	if (side->role == SECOND) {
		judge_receiver(side, &scene);
		is_empty(side, scene.vi, RECEIVES);
		return;
	}
	for (i = 0; i < 4; i++) {
		sends[i] = message(side, 1 + i, &scene.buffer, 0, SIZE);
		post(side, scene.vi, SENDS, sends[i]);
	}
	CHECK(side, finish(side, scene.vi, SENDS, sends[0]) & VIP_STATUS_TRANSPORT_ERROR);
	for (i = 1; i < 4; i++)
		CHECK(side, finish(side, scene.vi, SENDS, sends[i]) & VIP_STATUS_DESC_FLUSHED_ERROR);
	becomes(side, scene.vi, VIP_STATE_ERROR);
	await_error(side, VIP_ERROR_CONN_LOST);
	meet(side);
}

static void needs_read(struct side *side)
{
	if (!(side->attributes.RDMAReadSupport & side->level))
		skip(side, "this NIC does not read by RDMA at this level");
}

static void lost_question(struct side *side)
{
	struct scene scene;

	needs_read(side);
	scene = set_up(side);
	if (side->role == FIRST)
		judge_sender(side, &scene, read_of(side, &scene));
	else
		judge_receiver(side, &scene);
}

static const struct test drop_tests[] = {
	{ "a_send_is_lost", "M:h",
	  "status:TRANSPORT_ERROR@reliable state:Connected-Error@reliable error:CONN_LOST@reliable "
	  "VipRecvWait:VIP_TIMEOUT@unreliable",
	  EACH, lost_send, lost_send },
	{ "an_rdma_write_is_lost", "M:h", "status:TRANSPORT_ERROR@reliable state:Connected-Error@reliable", EACH,
	  lost_write, lost_write },
	{ "nothing_arrives_behind_a_loss", "M:h", "status:TRANSPORT_ERROR status:DESC_FLUSHED_ERROR", RELIABLE,
	  lost_and_behind, lost_and_behind },
	{ "what_asks_for_an_rdma_read_is_lost", "M:m", "status:TRANSPORT_ERROR status:OP_RDMA_READ", RELIABLE,
	  lost_question, lost_question },
};

/* Damaged */

static void damaged_write(struct side *side)
{
	failed_write(side, VIP_ERROR_RDMAW_DATA);
}

static void damaged_immediate(struct side *side)
{
	failed_immediate(side, VIP_STATUS_TRANSPORT_ERROR);
}

static const struct test corrupt_tests[] = {
	{ "a_send_is_damaged", "M:h",
	  "status:TRANSPORT_ERROR@reliable state:Connected-Error@reliable VipRecvWait:VIP_TIMEOUT@unreliable", EACH,
	  lost_send, lost_send },
	{ "an_rdma_write_is_damaged", "VG:viperrorcallback", "error:RDMAW_DATA status:TRANSPORT_ERROR@reliable", EACH,
	  damaged_write, damaged_write },
	{ "an_rdma_write_with_immediate_data_is_damaged", "VG:viperrorcallback D",
	  "status:TRANSPORT_ERROR status:OP_REMOTE_RDMA_WRITE", EACH, damaged_immediate, damaged_immediate },
};

/* Broken off */

static void broken_send(struct side *side)
{
	struct scene scene = set_up(side);

	if (side->role == FIRST)
		judge_sender(side, &scene, send_of(side, &scene));
	else
		judge_receive(side, &scene, VIP_STATUS_PARTIAL_ERROR);
}

static void broken_write(struct side *side)
{
	failed_write(side, VIP_ERROR_RDMAW_ABORT);
}

static void broken_immediate(struct side *side)
{
	failed_immediate(side, VIP_STATUS_PARTIAL_ERROR);
}

static const struct test break_tests[] = {
	{ "a_send_breaks_off", "M:m", "status:PARTIAL_ERROR status:TRANSPORT_ERROR@reliable", EACH, broken_send,
	  broken_send },
	{ "an_rdma_write_breaks_off", "VG:viperrorcallback", "error:RDMAW_ABORT status:TRANSPORT_ERROR@reliable", EACH,
	  broken_write, broken_write },
	{ "an_rdma_write_with_immediate_data_breaks_off", "VG:viperrorcallback D",
	  "status:PARTIAL_ERROR status:OP_REMOTE_RDMA_WRITE", EACH, broken_immediate, broken_immediate },
};

/* Answers lost */

static void lost_answer(struct side *side)
{
	struct scene scene;

	needs_read(side);
	scene = set_up(side);
	if (side->role == FIRST)
		judge_sender(side, &scene, read_of(side, &scene));
	else
		judge_target(side, &scene, VIP_ERROR_RDMA_TRANSPORT);
}

static const struct test answer_tests[] = {
	{ "what_answers_an_rdma_read_is_lost", "M:m", "error:RDMA_TRANSPORT status:TRANSPORT_ERROR state:Connected-Error",
	  RELIABLE, lost_answer, lost_answer },
};

const struct group drop_group = GROUP("link-drops", "drop", drop_tests);
const struct group corrupt_group = GROUP("link-corrupts", "corrupt", corrupt_tests);
const struct group break_group = GROUP("link-breaks", "break", break_tests);
const struct group answer_group = GROUP("link-drops-answers", "answer", answer_tests);
