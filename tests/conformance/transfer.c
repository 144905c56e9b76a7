/* Sends and receives: bytes, lengths, immediate data, order, and what goes wrong with a message. */
#include <string.h>

#include "suite.h"

#define ROOM 300000UL

static unsigned long clamp(const struct side *side, unsigned long length)
{
	return length < side->attributes.MaxTransferSize ? length : side->attributes.MaxTransferSize;
}

static const unsigned long lengths[] = { 0, 1, 3, 64, 100, 4095, 4096, 4097, 65472, 131073, 300000 };
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static void bytes_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, ROOM, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send;
	VIP_UINT32 status;
	size_t i;

	connect_vi(side, vi);
	for (i = 0; i < LENGTHS; i++) {
		fill_pattern(buffer.bytes, ROOM, (unsigned int)i);
		send = message(side, 1, &buffer, 0, clamp(side, lengths[i]));
		meet(side);
		post(side, vi, SENDS, send);
		status = finish(side, vi, SENDS, send);
		CHECK(side, (status & ~(VIP_UINT32)VIP_STATUS_DONE) == VIP_STATUS_OP_SEND);
		CHECK(side, send->CS.Length == clamp(side, lengths[i]) && send->CS.SegCount == 1);
		meet(side);
	}
}

static void bytes_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, ROOM, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive;
	VIP_UINT32 status;
	size_t i;

	connect_vi(side, vi);
	for (i = 0; i < LENGTHS; i++) {
		memset(buffer.bytes, 0xee, ROOM);
		receive = message(side, 1, &buffer, 0, clamp(side, ROOM));
		receive->CS.ImmediateData = 0x12345678;
		post(side, vi, RECEIVES, receive);
		meet(side);
		status = finish(side, vi, RECEIVES, receive);
		CHECK(side, (status & ~(VIP_UINT32)VIP_STATUS_DONE) == VIP_STATUS_OP_RECEIVE);
		CHECK(side, receive->CS.Length == clamp(side, lengths[i]));
		CHECK(side, has_pattern(buffer.bytes, receive->CS.Length, (unsigned int)i));
		CHECK(side, receive->CS.Length == ROOM ||
				    (unsigned char)buffer.bytes[receive->CS.Length] == 0xee);
		/* No immediate data came: the field is as it was. */
		CHECK(side, receive->CS.ImmediateData == 0x12345678);
		meet(side);
	}
}

static void immediate_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send;

	connect_vi(side, vi);
	meet(side);
	/* In both empty shapes, and with bytes. */
	send = descriptor(side, 1);
	send->CS.Control = VIP_CONTROL_OP_SENDRECV | VIP_CONTROL_IMMEDIATE;
	send->CS.ImmediateData = (VIP_UINT32)-7;
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	send = message(side, 2, &buffer, 0, 0);
	send->CS.Control = VIP_CONTROL_IMMEDIATE;
	send->CS.ImmediateData = 8;
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	send = message(side, 3, &buffer, 0, 100);
	send->CS.Control = VIP_CONTROL_IMMEDIATE;
	send->CS.ImmediateData = 0xffffffff;
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	CHECK(side, send->CS.ImmediateData == 0xffffffff && !(send->CS.Status & VIP_STATUS_IMMEDIATE));
	meet(side);
}

static void immediate_second(struct side *side)
{
	static const VIP_UINT32 values[] = { (VIP_UINT32)-7, 8, 0xffffffff }, sizes[] = { 0, 0, 100 };
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receives[3];
	unsigned int i;

	connect_vi(side, vi);
	for (i = 0; i < 3; i++) {
		receives[i] = i == 0 ? descriptor(side, 1) : message(side, i + 1, &buffer, 0, 100);
		/* Ignored on a receive. */
		receives[i]->CS.Control = VIP_CONTROL_IMMEDIATE;
		post(side, vi, RECEIVES, receives[i]);
	}
	meet(side);
	for (i = 0; i < 3; i++) {
		VIP_UINT32 status = finish(side, vi, RECEIVES, receives[i]);

		CHECK(side, status == (VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_IMMEDIATE));
		CHECK(side, receives[i]->CS.ImmediateData == values[i] && receives[i]->CS.Length == sizes[i]);
	}
	meet(side);
}

/* A message gathered from the most segments, of odd lengths, and scattered into others. */
static void segments(struct side *side)
{
	struct buffer buffer = new_buffer(side, 70000, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	unsigned long offset = 0, length;
	VIP_DESCRIPTOR *it = descriptor(side, 0);
	VIP_DESCRIPTOR_SEGMENT *all = it->DS;
	unsigned int i, count = side->role == FIRST ? MAX_SEGMENTS : 100;

	if (side->role == FIRST)
		fill_pattern(buffer.bytes, 70000, 1);
	for (i = 0; i < count; i++) {
		length = side->role == FIRST ? i % 7 * 31 : 333;
		all[i].Local.Data.AddressBits = 0;
		all[i].Local.Data.Address = buffer.bytes + offset;
		all[i].Local.Handle = buffer.handle;
		all[i].Local.Length = (VIP_UINT32)length;
		offset += length;
	}
	it->CS.SegCount = (VIP_UINT16)count;
	it->CS.Length = (VIP_UINT32)offset;
	connect_vi(side, vi);
	if (side->role == FIRST) {
		trade(side, &offset, &length, sizeof(offset));
		post(side, vi, SENDS, it);
		succeed(side, vi, SENDS, it);
	} else {
		post(side, vi, RECEIVES, it);
		trade(side, &offset, &length, sizeof(offset));
		succeed(side, vi, RECEIVES, it);
		CHECK(side, it->CS.Length == length);
		CHECK(side, has_pattern(buffer.bytes, length, 1));
	}
	meet(side);
}

#define MANY 500

static void order_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 4096, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *sends[16], *done;
	unsigned int i;

	connect_vi(side, vi);
	meet(side);
	for (i = 0; i < MANY + 16; i++) {
		if (i >= 16) {
			OK(side, VipSendWait(vi, LIMIT, &done));
			CHECK(side, done == sends[i % 16]);
		}
		/* Credits: never more on their way than receives posted. */
		if (i % 16 == 0)
			meet(side);
		if (i >= MANY)
			continue;
		sends[i % 16] = message(side, 1 + i % 16, &buffer, 0, i % 50);
		sends[i % 16]->CS.Control = VIP_CONTROL_IMMEDIATE;
		sends[i % 16]->CS.ImmediateData = i;
		post(side, vi, SENDS, sends[i % 16]);
	}
	meet(side);
}

static void order_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 4096, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receives[32], *done;
	unsigned int i;

	for (i = 0; i < 32; i++) {
		receives[i] = message(side, 1 + i, &buffer, i * 64, 64);
		post(side, vi, RECEIVES, receives[i]);
	}
	connect_vi(side, vi);
	meet(side);
	for (i = 0; i < MANY + 16; i++) {
		if (i % 16 == 0)
			meet(side);
		if (i >= MANY)
			continue;
		OK(side, VipRecvWait(vi, LIMIT, &done));
		CHECK(side, done == receives[i % 32]);
		CHECK(side, done->CS.ImmediateData == i && done->CS.Length == i % 50);
		receives[i % 32] = message(side, 1 + i % 32, &buffer, i % 32 * 64, 64);
		post(side, vi, RECEIVES, receives[i % 32]);
	}
	meet(side);
}

static void own_vi(struct side *side)
{
	struct buffer buffer = new_buffer(side, 200, NULL);
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_DESCRIPTOR *send, *receive;

	connect_own(side, a, b);
	fill_pattern(buffer.bytes, 100, 3);
	receive = message(side, 1, &buffer, 100, 100);
	send = message(side, 2, &buffer, 0, 100);
	post(side, b, RECEIVES, receive);
	post(side, a, SENDS, send);
	succeed(side, a, SENDS, send);
	succeed(side, b, RECEIVES, receive);
	CHECK(side, has_pattern(buffer.bytes + 100, 100, 3));
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* The receive queue is empty. */
static void underrun_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send;
	VIP_UINT32 status;

	connect_vi(side, vi);
	send = message(side, 1, &buffer, 0, 100);
	post(side, vi, SENDS, send);
	status = finish(side, vi, SENDS, send);
	meet(side);
	if (side->level == VIP_SERVICE_UNRELIABLE) {
		CHECK(side, !(status & VIP_STATUS_ERROR_MASK));
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
		meet(side);
		/* The connection stands. */
		send = message(side, 1, &buffer, 0, 50);
		post(side, vi, SENDS, send);
		succeed(side, vi, SENDS, send);
	} else {
		if (side->level == VIP_SERVICE_RELIABLE_RECEPTION)
			CHECK(side, status & (VIP_STATUS_REMOTE_DESC_ERROR | VIP_STATUS_TRANSPORT_ERROR));
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
		meet(side);
		OK(side, VipDisconnect(vi));
	}
	meet(side);
}

static void underrun_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100);
	VIP_ERROR_DESCRIPTOR error;

	connect_vi(side, vi);
	error = await_error(side, VIP_ERROR_RECVQ_EMPTY);
	CHECK(side, error.ResourceCode == VIP_RESOURCE_VI && error.ViHandle == vi);
	meet(side);
	if (side->level == VIP_SERVICE_UNRELIABLE) {
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
		post(side, vi, RECEIVES, receive);
		meet(side);
		succeed(side, vi, RECEIVES, receive);
		CHECK(side, receive->CS.Length == 50);
	} else {
		becomes(side, vi, VIP_STATE_ERROR);
		tolerate(side, VIP_ERROR_CONN_LOST);
		meet(side);
		OK(side, VipDisconnect(vi));
	}
	meet(side);
}

/* The receive descriptor is too small. */
static void too_long_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 101, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send;
	VIP_UINT32 status;

	connect_vi(side, vi);
	meet(side);
	send = message(side, 1, &buffer, 0, 101);
	post(side, vi, SENDS, send);
	status = finish(side, vi, SENDS, send);
	if (side->level == VIP_SERVICE_RELIABLE_RECEPTION)
		CHECK(side, status & VIP_STATUS_REMOTE_DESC_ERROR);
	meet(side);
	if (side->level == VIP_SERVICE_UNRELIABLE) {
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
		CHECK(side, !(status & VIP_STATUS_ERROR_MASK));
	} else {
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	}
	meet(side);
}

static void too_long_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 200, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100);
	VIP_UINT32 status;

	memset(buffer.bytes, 0x11, 200);
	connect_vi(side, vi);
	post(side, vi, RECEIVES, receive);
	meet(side);
	status = finish(side, vi, RECEIVES, receive);
	CHECK(side, status & VIP_STATUS_LENGTH_ERROR);
	CHECK(side, buffer.bytes[100] == 0x11);
	meet(side);
	if (side->level == VIP_SERVICE_UNRELIABLE) {
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	} else {
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	}
	meet(side);
}

/* Longer than the VI's MaxTransferSize. */
static void beyond_mtu(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct buffer buffer = new_buffer(side, 2000, NULL);
	VIP_VI_HANDLE vi;
	VIP_DESCRIPTOR *it;

	attributes.MaxTransferSize = 1000;
	vi = new_vi_with(side, &attributes, NULL, NULL);
	connect_vi(side, vi);
	if (side->role == SECOND) {
		it = message(side, 1, &buffer, 0, 2000);
		post(side, vi, RECEIVES, it);
		meet(side);
		succeed(side, vi, RECEIVES, it);
		CHECK(side, it->CS.Length == 1000);
		meet(side);
		if (side->level != VIP_SERVICE_UNRELIABLE)
			await_error(side, VIP_ERROR_CONN_LOST);
		return;
	}
	meet(side);
	it = message(side, 1, &buffer, 0, 1000);
	post(side, vi, SENDS, it);
	succeed(side, vi, SENDS, it);
	meet(side);
	it = message(side, 1, &buffer, 0, 1001);
	post(side, vi, SENDS, it);
	CHECK(side, finish(side, vi, SENDS, it) & VIP_STATUS_LENGTH_ERROR);
	if (side->level != VIP_SERVICE_UNRELIABLE) {
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	} else {
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	}
}

/* A data segment that is not the VI's to use: one way a run, as a reliable connection breaks. */
static void protection(struct side *side)
{
	struct buffer buffer = new_buffer(side, 1000, NULL);
	VIP_PROTECTION_HANDLE tag, other_tag;
	VIP_MEM_ATTRIBUTES other = { 0 };
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct buffer tagged;
	VIP_VI_HANDLE vi;
	VIP_DESCRIPTOR *it;
	int way;

	OK(side, VipCreatePtag(side->nic, &tag));
	OK(side, VipCreatePtag(side->nic, &other_tag));
	other.Ptag = other_tag;
	tagged = new_buffer(side, 1000, &other);
	attributes.Ptag = tag;
	for (way = 0; way < 7; way++) {
		vi = new_vi_with(side, &attributes, NULL, NULL);
		connect_vi(side, vi);
		if (side->role == SECOND) {
			if (side->level != VIP_SERVICE_UNRELIABLE)
				await_error(side, VIP_ERROR_CONN_LOST);
			meet(side);
			continue;
		}
		it = message(side, 1, way == 6 ? &tagged : &buffer, 0, 100);
		if (way == 0)
			it->DS[0].Local.Length = 1001; /* beyond its end */
		if (way == 1)
			it->DS[0].Local.Handle++; /* no such region */
		if (way == 2)
			it->DS[0].Local.Handle = 0;
		if (way == 3)
			it->DS[0].Local.Data.Address = buffer.bytes - 1; /* before its beginning */
		if (way == 4) /* beyond, with no byte */
			it->DS[0].Local.Data.Address = buffer.bytes + 1001;
		if (way == 4)
			it->DS[0].Local.Length = 0;
		if (way == 5) /* around the end of the address space */
			it->DS[0].Local.Data.AddressBits = (VIP_UINT64)-50;
		it->CS.Length = it->DS[0].Local.Length;
		post(side, vi, SENDS, it);
		if (!(finish(side, vi, SENDS, it) & VIP_STATUS_PROTECTION_ERROR))
			FAIL(side, "way %d: status %08x", way, (unsigned int)it->CS.Status);
		if (side->level != VIP_SERVICE_UNRELIABLE) {
			becomes(side, vi, VIP_STATE_ERROR);
			await_error(side, VIP_ERROR_CONN_LOST);
		}
		meet(side);
	}
}

static void receive_protection(struct side *side)
{
	struct buffer buffer = new_buffer(side, 1000, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it = message(side, 1, &buffer, 0, 100);
	VIP_UINT32 status;

	if (side->role == SECOND) {
		it->DS[0].Local.Handle++;
		post(side, vi, RECEIVES, it);
	}
	connect_vi(side, vi);
	if (side->role == SECOND) {
		CHECK(side, finish(side, vi, RECEIVES, it) & VIP_STATUS_PROTECTION_ERROR);
	} else {
		post(side, vi, SENDS, it);
		status = finish(side, vi, SENDS, it);
		if (side->level == VIP_SERVICE_RELIABLE_RECEPTION)
			CHECK(side, status & VIP_STATUS_REMOTE_DESC_ERROR);
	}
	if (side->level != VIP_SERVICE_UNRELIABLE) {
		becomes(side, vi, VIP_STATE_ERROR);
		await_error(side, VIP_ERROR_CONN_LOST);
	}
	meet(side);
}

/* The sender's later descriptors come back flushed behind the one that failed. */
static void flushed_behind(struct side *side)
{
	struct buffer buffer = new_buffer(side, 1000, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *bad, *later[3];
	unsigned int i;

	connect_vi(side, vi);
	if (side->role == SECOND) {
		await_error(side, VIP_ERROR_CONN_LOST);
		return;
	}
	bad = message(side, 1, &buffer, 0, 100);
	bad->DS[0].Local.Handle++;
	post(side, vi, SENDS, bad);
	for (i = 0; i < 3; i++) {
		later[i] = message(side, 2 + i, &buffer, 0, 100);
		post(side, vi, SENDS, later[i]);
	}
	CHECK(side, finish(side, vi, SENDS, bad) & VIP_STATUS_PROTECTION_ERROR);
	for (i = 0; i < 3; i++)
		CHECK(side, finish(side, vi, SENDS, later[i]) & VIP_STATUS_DESC_FLUSHED_ERROR);
	is_empty(side, vi, SENDS);
	await_error(side, VIP_ERROR_CONN_LOST);
	CHECK(side, state_of(side, vi) == VIP_STATE_ERROR);
}

static const struct test tests[] = {
	{ "a_message_arrives_whole", "M:h",
	  "VipPostSend:VIP_SUCCESS VipPostRecv:VIP_SUCCESS VipSendWait:VIP_SUCCESS VipRecvWait:VIP_SUCCESS status:DONE "
	  "status:OP_SEND status:OP_RECEIVE",
	  EACH, bytes_first, bytes_second },
	{ "immediate_data_arrives", "M:h C:mpich-nt C:iometer", "status:IMMEDIATE", EACH, immediate_first,
	  immediate_second },
	{ "the_most_segments_gather_and_scatter", "M:m", "VipPostSend:VIP_SUCCESS", EACH, segments, segments },
	{ "messages_keep_their_order", "VG:viprecvdone C:iometer", "VipSendWait:VIP_SUCCESS VipRecvWait:VIP_SUCCESS", EACH,
	  order_first, order_second },
	{ "a_nic_sends_to_itself", "C:mplite", "VipRecvWait:VIP_SUCCESS", EACH, own_vi, NULL },
	{ "no_receive_is_posted", "M:m VG:viperrorcallback",
	  "error:RECVQ_EMPTY error:CONN_LOST@reliable status:TRANSPORT_ERROR@delivery status:REMOTE_DESC_ERROR@reception "
	  "state:Connected-Error@reliable",
	  EACH,
	  underrun_first, underrun_second },
	{ "a_receive_is_too_small", "M:m", "status:LENGTH_ERROR status:REMOTE_DESC_ERROR@reception state:Connected-Error@reliable", EACH,
	  too_long_first, too_long_second },
	{ "a_message_is_too_long_for_the_vi", "M:m", "status:LENGTH_ERROR state:Connected-Error@reliable", EACH, beyond_mtu,
	  beyond_mtu },
	{ "a_send_reads_only_its_own_memory", "M:h", "status:PROTECTION_ERROR state:Connected-Error@reliable", EACH, protection,
	  protection },
	{ "a_receive_writes_only_its_own_memory", "M:h", "status:PROTECTION_ERROR status:REMOTE_DESC_ERROR@reception", EACH,
	  receive_protection, receive_protection },
	{ "later_sends_are_flushed", "M:m", "status:DESC_FLUSHED_ERROR state:Connected-Error", RELIABLE, flushed_behind,
	  flushed_behind },
};

const struct group transfer_group = GROUP("transfer", NULL, tests);
