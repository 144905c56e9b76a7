/* Work queues: posting, polling, waiting, and the descriptors' forms. */
#include <string.h>

#include "suite.h"

static void empty(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *done = descriptor(side, 1);

	is_empty(side, vi, SENDS);
	is_empty(side, vi, RECEIVES);
	/* A wait has nothing to wait for. */
	IS(side, VipSendWait(vi, VIP_INFINITE, &done), VIP_DESCRIPTOR_ERROR);
	CHECK(side, done == NULL);
	done = descriptor(side, 1);
	IS(side, VipRecvWait(vi, VIP_INFINITE, &done), VIP_DESCRIPTOR_ERROR);
	CHECK(side, done == NULL);
}

static void not_done(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100), *done = receive;
	unsigned long began;

	post(side, vi, RECEIVES, receive);
	IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
	CHECK(side, done == NULL);
	done = receive;
	began = now_ms();
	IS(side, VipRecvWait(vi, SHORT, &done), VIP_TIMEOUT);
	CHECK(side, done == NULL && now_ms() - began >= SHORT - 1);
	done = receive;
	IS(side, VipRecvWait(vi, 0, &done), VIP_TIMEOUT);
	CHECK(side, done == NULL);
}

/* A send that cannot complete: the receiver's guest does not stop, so only an unconnected VI's flush is at hand. */
static void send_idle(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send = message(side, 1, &buffer, 0, 100);

	post(side, vi, SENDS, send);
	CHECK(side, finish(side, vi, SENDS, send) & VIP_STATUS_DESC_FLUSHED_ERROR);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	is_empty(side, vi, SENDS);
}

static void bad_calls(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it = descriptor(side, 1), *done = it;

	IS(side, VipPostSend(NULL, it, side->descriptors.handle), VIP_INVALID_PARAMETER);
	IS(side, VipPostRecv(NULL, it, side->descriptors.handle), VIP_INVALID_PARAMETER);
	IS(side, VipPostSend(vi, NULL, side->descriptors.handle), VIP_INVALID_PARAMETER);
	IS(side, VipPostRecv(vi, NULL, side->descriptors.handle), VIP_INVALID_PARAMETER);
	IS(side, VipPostSend(vi, (VIP_DESCRIPTOR *)(void *)((char *)it + 8), side->descriptors.handle),
	   VIP_INVALID_PARAMETER);
	IS(side, VipPostRecv(vi, (VIP_DESCRIPTOR *)(void *)((char *)it + 32), side->descriptors.handle),
	   VIP_INVALID_PARAMETER);
	IS(side, VipSendDone(NULL, &done), VIP_INVALID_PARAMETER);
	CHECK(side, done == NULL);
	done = it;
	IS(side, VipRecvDone(&vi, &done), VIP_INVALID_PARAMETER);
	CHECK(side, done == NULL);
	done = it;
	IS(side, VipSendWait(NULL, 1, &done), VIP_INVALID_PARAMETER);
	CHECK(side, done == NULL);
	done = it;
	IS(side, VipRecvWait(side, 1, &done), VIP_INVALID_PARAMETER);
	CHECK(side, done == NULL);
	IS(side, VipSendDone(vi, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipRecvDone(vi, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipSendWait(vi, 1, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipRecvWait(vi, 1, NULL), VIP_INVALID_PARAMETER);
}

/* A malformed descriptor is refused by the post, or comes back with the error. */
static void malformed(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *it, VIP_UINT32 bit)
{
	VIP_RETURN code = queue == SENDS ? VipPostSend(vi, it, side->descriptors.handle) :
					   VipPostRecv(vi, it, side->descriptors.handle);
	VIP_DESCRIPTOR *done;

	saw_return(side, queue == SENDS ? "VipPostSend" : "VipPostRecv", code);
	if (code == VIP_INVALID_PARAMETER) {
		CHECK(side, saw_status(side, it->CS.Status) & bit);
		is_empty(side, vi, queue);
		return;
	}
	IS(side, code, VIP_SUCCESS);
	code = queue == SENDS ? VipSendWait(vi, LIMIT, &done) : VipRecvWait(vi, LIMIT, &done);
	IS(side, code, VIP_DESCRIPTOR_ERROR);
	CHECK(side, done == it && saw_status(side, it->CS.Status) & bit);
}

static void forms(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it;

	it = message(side, 0, &buffer, 0, 100);
	it->CS.Control = VIP_CONTROL_OP_RESERVED;
	malformed(side, vi, SENDS, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.Control = 0x0010;
	malformed(side, vi, SENDS, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.Control = 0x8000;
	malformed(side, vi, RECEIVES, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.Control = VIP_CONTROL_OP_RDMAWRITE;
	malformed(side, vi, RECEIVES, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.SegCount = MAX_SEGMENTS + 1;
	malformed(side, vi, SENDS, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.SegCount = 0;
	it->CS.Control = VIP_CONTROL_OP_RDMAWRITE;
	malformed(side, vi, SENDS, it, VIP_STATUS_FORMAT_ERROR);
	it = message(side, 0, &buffer, 0, 100);
	it->CS.SegCount = 2;
	it->DS[0].Local.Length = 0xffffffff;
	it->DS[1].Local = it->DS[0].Local;
	malformed(side, vi, SENDS, it, VIP_STATUS_LENGTH_ERROR);
}

/* Programs post a descriptor again as it came back. */
static void again(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_DESCRIPTOR *send = message(side, 1, &buffer, 0, 10), *receive = message(side, 2, &buffer, 50, 50);
	int i;

	connect_own(side, a, b);
	for (i = 0; i < 10; i++) {
		receive->CS.Length = 50;
		post(side, b, RECEIVES, receive);
		post(side, a, SENDS, send);
		succeed(side, a, SENDS, send);
		succeed(side, b, RECEIVES, receive);
		CHECK(side, send->CS.Status == (VIP_STATUS_DONE | VIP_STATUS_OP_SEND) && receive->CS.Length == 10);
		CHECK(side, send->CS.Length == 10 && send->DS[0].Local.Length == 10);
	}
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* Both spellings name the same bytes. */
static void spellings(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_DESCRIPTOR *it = message(side, 1, &buffer, 5, 10);

	CHECK(side, &it->CS.Length == &it->Control.Length && sizeof(*it) == 64);
	CHECK(side, (void *)&it->DS[1].Local.Handle == (void *)&it->Data[1].Handle);
	CHECK(side, it->Data[0].Length == 10 && it->Data[0].Data.Address == buffer.bytes + 5);
}

/* Sends of an Idle VI are complete at once, and stay on the queue until they are dequeued. */
static void overrun(struct side *side)
{
	unsigned long count = side->attributes.MaxDescriptorsPerQueue, i;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *many, *done;
	struct buffer memory;
	VIP_RETURN code;

	memory = new_buffer(side, (2 * count + 2) * sizeof(*many), NULL);
	many = (VIP_DESCRIPTOR *)(void *)memory.bytes;
	for (i = 0; i < count; i++)
		OK(side, VipPostRecv(vi, &many[i], memory.handle));
	code = SEEN(side, VipPostRecv(vi, &many[count], memory.handle));
	if (code != VIP_SUCCESS)
		IS(side, code, VIP_ERROR_RESOURCE);
	CHECK(side, await_error(side, VIP_ERROR_VI_OVERRUN).ViHandle == vi);
	IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
	many += count + 1;
	for (i = 0; i < count; i++)
		OK(side, VipPostSend(vi, &many[i], memory.handle));
	code = SEEN(side, VipPostSend(vi, &many[count], memory.handle));
	if (code != VIP_SUCCESS)
		IS(side, code, VIP_ERROR_RESOURCE);
	CHECK(side, await_error(side, VIP_ERROR_VI_OVERRUN).ViHandle == vi);
	/* What is dequeued makes room. */
	IS(side, VipSendWait(vi, LIMIT, &done), VIP_DESCRIPTOR_ERROR);
	CHECK(side, done == many);
	OK(side, VipPostSend(vi, done, memory.handle));
	OK(side, VipDestroyVi(vi));
}

/* Large messages, so that the oldest is still on its way when it is looked for. */
static void on_its_way(struct side *side)
{
	unsigned long size = side->attributes.MaxTransferSize, limit = now_ms() + LIMIT;
	int polled = 0, waited = 0, theirs;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it, *done;
	struct buffer buffer;
	VIP_RETURN code;

	if (size > 1UL << 20)
		size = 1UL << 20;
	buffer = new_buffer(side, size, NULL);
	if (side->role == SECOND) {
		do {
			it = message(side, 1, &buffer, 0, size);
			post(side, vi, RECEIVES, it);
			if (state_of(side, vi) == VIP_STATE_IDLE)
				connect_vi(side, vi);
			meet(side);
			succeed(side, vi, RECEIVES, it);
			trade(side, &polled, &waited, sizeof(polled));
		} while (!waited);
		return;
	}
	connect_vi(side, vi);
	while (!polled || !waited) {
		if (now_ms() > limit)
			FAIL(side, "sends are always complete");
		it = message(side, 1, &buffer, 0, size);
		done = it;
		meet(side);
		post(side, vi, SENDS, it);
		code = polled ? VipSendWait(vi, 0, &done) : VipSendDone(vi, &done);
		saw_return(side, polled ? "VipSendWait" : "VipSendDone", code);
		if (code != VIP_SUCCESS) {
			IS(side, code, polled ? VIP_TIMEOUT : VIP_NOT_DONE);
			CHECK(side, done == NULL);
			waited = polled;
			polled = 1;
			succeed(side, vi, SENDS, it);
		}
		trade(side, &waited, &theirs, sizeof(waited));
	}
}

static void sleep_and_poll(struct side *side)
{
	VIP_DESCRIPTOR *done;

	OK(side, VipRecvWait(side->argument, LIMIT, &done));
}

/* A thread that waits holds up no other call on the same VI. */
static void wait_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100), *done;
	int i;

	post(side, vi, RECEIVES, receive);
	connect_vi(side, vi);
	in_thread(side, sleep_and_poll, vi);
	for (i = 0; i < 1000; i++) {
		IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
		IS(side, VipSendDone(vi, &done), VIP_DESCRIPTOR_ERROR);
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	}
	meet(side);
	join(side);
	meet(side);
}

static void wait_second(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send = descriptor(side, 1);

	connect_vi(side, vi);
	meet(side);
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	meet(side);
}

static void wait_for_flush(struct side *side)
{
	VIP_DESCRIPTOR *done;

	IS(side, VipRecvWait(side->argument, VIP_INFINITE, &done), VIP_DESCRIPTOR_ERROR);
	CHECK(side, done != NULL && done->CS.Status & VIP_STATUS_DESC_FLUSHED_ERROR);
}

/* The end of a connection ends waits, infinite ones too. */
static void wait_lost(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	post(side, vi, RECEIVES, descriptor(side, 1));
	connect_vi(side, vi);
	if (side->role == FIRST) {
		in_thread(side, wait_for_flush, vi);
		meet(side);
		await_error(side, VIP_ERROR_CONN_LOST);
		join(side);
	} else {
		meet(side);
		OK(side, VipDisconnect(vi));
	}
	meet(side);
}

static void wait_closed(struct side *side)
{
	VIP_DESCRIPTOR *done;
	VIP_RETURN code = SEEN(side, VipRecvWait(side->argument, VIP_INFINITE, &done));

	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_RESOURCE);
	CHECK(side, done == NULL);
}

static void *vi_to_wait_for(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	post(side, vi, RECEIVES, descriptor(side, 1));
	return vi;
}

static void closing(struct side *side)
{
	close_under(side, vi_to_wait_for, wait_closed);
}

static const struct test tests[] = {
	{ "an_empty_queue_gives_an_error_and_null", "VG:viprecvdone M:m",
	  "VipSendDone:VIP_DESCRIPTOR_ERROR VipRecvDone:VIP_DESCRIPTOR_ERROR VipSendWait:VIP_DESCRIPTOR_ERROR "
	  "VipRecvWait:VIP_DESCRIPTOR_ERROR",
	  EACH, empty, NULL },
	{ "a_head_that_is_not_done_is_not_given", "VG:viprecvdone C:armci",
	  "VipRecvDone:VIP_NOT_DONE VipRecvWait:VIP_TIMEOUT VipPostRecv:VIP_SUCCESS", EACH, not_done, NULL },
	{ "a_send_in_idle_is_flushed", "M:m", "VipPostSend:VIP_SUCCESS VipSendWait:VIP_DESCRIPTOR_ERROR "
	  "status:DESC_FLUSHED_ERROR", EACH, send_idle, NULL },
	{ "bad_parameters", "VG:viprecvdone D",
	  "VipPostSend:VIP_INVALID_PARAMETER VipPostRecv:VIP_INVALID_PARAMETER VipSendDone:VIP_INVALID_PARAMETER "
	  "VipRecvDone:VIP_INVALID_PARAMETER VipSendWait:VIP_INVALID_PARAMETER VipRecvWait:VIP_INVALID_PARAMETER",
	  ONCE, bad_calls, NULL },
	{ "malformed_descriptors_are_told", "M:m",
	  "status:FORMAT_ERROR status:LENGTH_ERROR VipPostSend:VIP_INVALID_PARAMETER VipPostRecv:VIP_INVALID_PARAMETER",
	  EACH, forms, NULL },
	{ "a_descriptor_is_posted_again", "C:mpich-nt", "VipSendWait:VIP_SUCCESS VipRecvWait:VIP_SUCCESS", EACH, again,
	  NULL },
	{ "both_spellings_are_one", "HI HG", "", ONCE, spellings, NULL },
	{ "a_queue_has_an_end", "VG:viperrorcallback",
	  "VipPostRecv:VIP_ERROR_RESOURCE VipPostSend:VIP_ERROR_RESOURCE error:VI_OVERRUN", EACH, overrun, NULL },
	{ "a_send_on_its_way_is_not_done", "VG:viprecvdone M:m", "VipSendDone:VIP_NOT_DONE VipSendWait:VIP_TIMEOUT", EACH,
	  on_its_way, on_its_way },
	{ "a_wait_holds_up_no_poll", "VG:viprecvdone C:mpich-nt", "VipRecvDone:VIP_NOT_DONE VipRecvWait:VIP_SUCCESS", EACH,
	  wait_first, wait_second },
	{ "a_lost_connection_ends_waits", "M:h", "VipRecvWait:VIP_DESCRIPTOR_ERROR error:CONN_LOST", EACH, wait_lost,
	  wait_lost },
	{ "closing_ends_waits", "D", "VipRecvWait:VIP_ERROR_RESOURCE VipCloseNic:VIP_SUCCESS", ONCE, closing, NULL },
};

const struct group queue_group = GROUP("queue", NULL, tests);
