/* RDMA: the first role writes and reads, the second owns the memory. */
#include <string.h>

#include "suite.h"

#define SIZE 200000UL

/* Where the second's memory is. */
struct place {
	VIP_UINT64 address;
	VIP_MEM_HANDLE handle;
	VIP_MEM_HANDLE closed; /* the same bytes, closed to RDMA */
};

static VIP_VI_HANDLE rdma_vi(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);

	attributes.EnableRdmaWrite = VIP_TRUE;
	attributes.EnableRdmaRead = (side->attributes.RDMAReadSupport & side->level) != 0;
	return new_vi_with(side, &attributes, NULL, NULL);
}

static struct buffer open_buffer(struct side *side, struct place *place)
{
	VIP_MEM_ATTRIBUTES open = { NULL, VIP_TRUE, VIP_FALSE };
	struct buffer buffer;

	open.EnableRdmaRead = side->attributes.RDMAReadSupport != 0;
	buffer = new_buffer(side, SIZE, &open);
	place->address = (VIP_UINT64)(size_t)buffer.bytes;
	place->handle = buffer.handle;
	OK(side, VipRegisterMem(side->nic, buffer.bytes, SIZE, NULL, &place->closed));
	return buffer;
}

static void needs_read(struct side *side)
{
	if (!(side->attributes.RDMAReadSupport & side->level))
		skip(side, "this NIC does not read by RDMA at this level");
}

static const struct {
	unsigned long offset, length;
} pieces[] = { { 0, 1 }, { 3, 5 }, { 4000, 200 }, { 0, SIZE }, { 1, 131073 }, { SIZE, 0 }, { 0, 0 } };
#define PIECES (sizeof(pieces) / sizeof(pieces[0]))

static void write_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, SIZE, NULL);
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	VIP_DESCRIPTOR *it;
	unsigned int i;

	memset(&unused, 0, sizeof(unused));
	connect_vi(side, vi);
	trade(side, &unused, &place, sizeof(place));
	for (i = 0; i < PIECES; i++) {
		fill_pattern(buffer.bytes, SIZE, i);
		it = rdma(side, 1, VIP_CONTROL_OP_RDMAWRITE, &buffer, 0, pieces[i].length,
			  place.address + pieces[i].offset, place.handle);
		post(side, vi, SENDS, it);
		CHECK(side, finish(side, vi, SENDS, it) == (VIP_STATUS_DONE | VIP_STATUS_OP_RDMA_WRITE));
		/* Reception: it is there. Otherwise a send behind it says so. */
		it = descriptor(side, 2);
		post(side, vi, SENDS, it);
		succeed(side, vi, SENDS, it);
		meet(side);
	}
}

static void write_second(struct side *side)
{
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	struct buffer buffer = open_buffer(side, &place);
	VIP_DESCRIPTOR *receive = descriptor(side, 1);
	unsigned int i;

	connect_vi(side, vi);
	memset(buffer.bytes, 0x7e, SIZE);
	post(side, vi, RECEIVES, receive);
	trade(side, &place, &unused, sizeof(place));
	for (i = 0; i < PIECES; i++) {
		const char *end = buffer.bytes + pieces[i].offset + pieces[i].length;

		succeed(side, vi, RECEIVES, receive);
		CHECK(side, has_pattern(buffer.bytes + pieces[i].offset, pieces[i].length, i));
		CHECK(side, end == buffer.bytes + SIZE || *end == 0x7e);
		CHECK(side, pieces[i].offset == 0 || buffer.bytes[pieces[i].offset - 1] == 0x7e);
		memset(buffer.bytes, 0x7e, SIZE);
		receive = descriptor(side, 1);
		post(side, vi, RECEIVES, receive);
		meet(side);
	}
}

/* With immediate data it takes a receive, in order with sends, and leaves its segments alone. */
static void immediate_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	VIP_DESCRIPTOR *it;
	unsigned int i;

	memset(&unused, 0, sizeof(unused));
	fill_pattern(buffer.bytes, 100, 9);
	connect_vi(side, vi);
	trade(side, &unused, &place, sizeof(place));
	for (i = 0; i < 20; i++) {
		if (i % 2)
			it = rdma(side, i + 1, VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE, &buffer, 0, 100,
				  place.address + i * 100, place.handle);
		else
			it = message(side, i + 1, &buffer, 0, 10);
		it->CS.Control |= VIP_CONTROL_IMMEDIATE;
		it->CS.ImmediateData = i;
		post(side, vi, SENDS, it);
		succeed(side, vi, SENDS, it);
	}
	meet(side);
}

static void immediate_second(struct side *side)
{
	struct buffer room = new_buffer(side, 20 * 100, NULL), buffer;
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	VIP_DESCRIPTOR *receives[20];
	VIP_UINT32 status;
	unsigned int i;

	buffer = open_buffer(side, &place);
	memset(room.bytes, 0x33, room.size);
	for (i = 0; i < 20; i++) {
		receives[i] = message(side, i + 1, &room, i * 100, 100);
		post(side, vi, RECEIVES, receives[i]);
	}
	connect_vi(side, vi);
	trade(side, &place, &unused, sizeof(place));
	for (i = 0; i < 20; i++) {
		status = finish(side, vi, RECEIVES, receives[i]);
		CHECK(side, status & VIP_STATUS_IMMEDIATE && receives[i]->CS.ImmediateData == i);
		if (i % 2) {
			CHECK(side, (status & VIP_STATUS_OP_MASK) == VIP_STATUS_OP_REMOTE_RDMA_WRITE);
			CHECK(side, has_pattern(buffer.bytes + i * 100, 100, 9));
			CHECK(side, room.bytes[i * 100] == 0x33);
		} else {
			CHECK(side, (status & VIP_STATUS_OP_MASK) == VIP_STATUS_OP_RECEIVE);
			CHECK(side, receives[i]->CS.Length == 10);
		}
	}
	meet(side);
}

/* Programs watch the last word, and expect all bytes before it. */
static void watched(struct side *side)
{
	struct buffer buffer = { 0 };
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place = { 0 }, theirs;
	volatile VIP_UINT32 *flag;
	unsigned long limit;
	VIP_DESCRIPTOR *it;
	unsigned int i;

	if (side->role == SECOND)
		buffer = open_buffer(side, &place);
	else
		buffer = new_buffer(side, SIZE, NULL);
	connect_vi(side, vi);
	trade(side, &place, &theirs, sizeof(place));
	flag = (volatile VIP_UINT32 *)(void *)(buffer.bytes + SIZE - 4);
	for (i = 1; i <= 20; i++) {
		if (side->role == FIRST) {
			fill_pattern(buffer.bytes, SIZE, i);
			*flag = 0xabcd0000 + i;
			it = rdma(side, 1, VIP_CONTROL_OP_RDMAWRITE, &buffer, 0, SIZE, theirs.address, theirs.handle);
			post(side, vi, SENDS, it);
			succeed(side, vi, SENDS, it);
		} else {
			limit = now_ms() + LIMIT;
			while (*flag != 0xabcd0000 + i)
				if (now_ms() > limit)
					FAIL(side, "the flag is not written");
			CHECK(side, has_pattern(buffer.bytes, SIZE - 4, i));
		}
		meet(side);
	}
}

/* What the target does not allow: `way` says how. */
enum refusal { CLOSED_REGION, NO_HANDLE, BEYOND, BEFORE, CLOSED_VI, EMPTY_BUT_CLOSED, OTHER_TAG, REFUSALS };

static void refused(struct side *side, VIP_UINT16 operation)
{
	VIP_UINT32 op = operation == VIP_CONTROL_OP_RDMAREAD ? VIP_STATUS_OP_RDMA_READ : VIP_STATUS_OP_RDMA_WRITE;
	VIP_ERROR_CODE code = operation == VIP_CONTROL_OP_RDMAREAD ? VIP_ERROR_RDMAR_PROT : VIP_ERROR_RDMAW_PROT;
	VIP_VI_ATTRIBUTES attributes;
	VIP_PROTECTION_HANDLE tag, other_tag;
	VIP_MEM_ATTRIBUTES tagged = { NULL, VIP_TRUE, VIP_FALSE };
	struct place place = { 0 }, theirs;
	struct buffer buffer;
	VIP_DESCRIPTOR *it;
	VIP_VI_HANDLE vi;
	VIP_UINT32 status;
	int way;

	buffer = open_buffer(side, &place);
	memset(buffer.bytes, side->role == FIRST ? 1 : 2, SIZE);
	OK(side, VipCreatePtag(side->nic, &tag));
	OK(side, VipCreatePtag(side->nic, &other_tag));
	tagged.EnableRdmaRead = side->attributes.RDMAReadSupport != 0;
	for (way = 0; way < REFUSALS; way++) {
		unsigned long length = way == EMPTY_BUT_CLOSED ? 0 : 100;
		VIP_UINT64 remote;
		VIP_MEM_HANDLE handle;

		attributes = vi_attributes(side);
		attributes.EnableRdmaWrite = way != CLOSED_VI;
		attributes.EnableRdmaRead = way != CLOSED_VI && side->attributes.RDMAReadSupport & side->level;
		if (way == OTHER_TAG) {
			attributes.Ptag = tag;
			tagged.Ptag = other_tag;
			OK(side, VipRegisterMem(side->nic, buffer.bytes, SIZE, &tagged, &place.handle));
		}
		vi = new_vi_with(side, &attributes, NULL, NULL);
		connect_vi(side, vi);
		trade(side, &place, &theirs, sizeof(place));
		if (side->role == SECOND) {
			VIP_ERROR_DESCRIPTOR error = await_error(side, code);

			CHECK(side, error.ViHandle == vi && error.ResourceCode == VIP_RESOURCE_VI);
			CHECK(side, error.OpCode == op ||
					    (op == VIP_STATUS_OP_RDMA_WRITE &&
					     error.OpCode == VIP_STATUS_OP_REMOTE_RDMA_WRITE));
			if (side->level != VIP_SERVICE_UNRELIABLE)
				becomes(side, vi, VIP_STATE_ERROR);
			else
				CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
			CHECK(side, buffer.bytes[0] == 2 && buffer.bytes[SIZE - 1] == 2 && buffer.bytes[99] == 2);
			meet(side);
			tolerate(side, VIP_ERROR_CONN_LOST);
			continue;
		}
		remote = theirs.address;
		handle = theirs.handle;
		if (way == CLOSED_REGION || way == EMPTY_BUT_CLOSED)
			handle = theirs.closed;
		if (way == NO_HANDLE)
			handle += 0x1000;
		if (way == BEYOND)
			remote += SIZE - 99;
		if (way == BEFORE)
			remote -= 1;
		it = rdma(side, 1, operation, &buffer, 0, length, remote, handle);
		post(side, vi, SENDS, it);
		status = finish(side, vi, SENDS, it);
		CHECK(side, (status & VIP_STATUS_OP_MASK) == op);
		if (operation == VIP_CONTROL_OP_RDMAREAD || side->level == VIP_SERVICE_RELIABLE_RECEPTION)
			if (!(status & VIP_STATUS_RDMA_PROT_ERROR))
				FAIL(side, "way %d: status %08x", way, (unsigned int)status);
		if (side->level != VIP_SERVICE_UNRELIABLE)
			becomes(side, vi, VIP_STATE_ERROR);
		meet(side);
		CHECK(side, buffer.bytes[0] == 1 && buffer.bytes[99] == 1);
		tolerate(side, VIP_ERROR_CONN_LOST);
	}
}

static void write_refused(struct side *side)
{
	refused(side, VIP_CONTROL_OP_RDMAWRITE);
}

static void read_refused(struct side *side)
{
	needs_read(side);
	refused(side, VIP_CONTROL_OP_RDMAREAD);
}

/* With immediate data the receive descriptor tells of it. */
static void write_immediate_refused(struct side *side)
{
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place = { 0 }, theirs;
	struct buffer buffer = open_buffer(side, &place);
	VIP_DESCRIPTOR *it = descriptor(side, 1);

	if (side->role == SECOND)
		post(side, vi, RECEIVES, it);
	connect_vi(side, vi);
	trade(side, &place, &theirs, sizeof(place));
	if (side->role == FIRST) {
		it = rdma(side, 1, VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE, &buffer, 0, 100, theirs.address,
			  theirs.closed);
		post(side, vi, SENDS, it);
		finish(side, vi, SENDS, it);
	} else {
		CHECK(side, finish(side, vi, RECEIVES, it) & VIP_STATUS_PROTECTION_ERROR);
	}
	tolerate(side, VIP_ERROR_CONN_LOST);
	meet(side);
}

/* RDMA read. */
static void read_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, SIZE + 1, NULL);
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	VIP_DESCRIPTOR *it;
	unsigned int i;

	needs_read(side);
	memset(&unused, 0, sizeof(unused));
	connect_vi(side, vi);
	trade(side, &unused, &place, sizeof(place));
	for (i = 0; i < PIECES; i++) {
		memset(buffer.bytes, 0x7e, SIZE + 1);
		it = rdma(side, 1, VIP_CONTROL_OP_RDMAREAD, &buffer, 0, pieces[i].length,
			  place.address + pieces[i].offset, place.handle);
		post(side, vi, SENDS, it);
		CHECK(side, finish(side, vi, SENDS, it) == (VIP_STATUS_DONE | VIP_STATUS_OP_RDMA_READ));
		CHECK(side, it->CS.Length == pieces[i].length);
		CHECK(side, has_pattern(buffer.bytes, pieces[i].length, (unsigned int)pieces[i].offset));
		CHECK(side, buffer.bytes[pieces[i].length] == 0x7e);
		meet(side);
		meet(side);
	}
}

static void read_second(struct side *side)
{
	VIP_VI_HANDLE vi = rdma_vi(side);
	struct place place, unused;
	struct buffer buffer = open_buffer(side, &place);
	VIP_DESCRIPTOR *receive = descriptor(side, 1), *done;
	unsigned int i;

	needs_read(side);
	post(side, vi, RECEIVES, receive);
	connect_vi(side, vi);
	for (i = 0; i < PIECES; i++) {
		fill_pattern(buffer.bytes + pieces[i].offset, pieces[i].length, (unsigned int)pieces[i].offset);
		if (i == 0)
			trade(side, &place, &unused, sizeof(place));
		else
			meet(side);
		meet(side);
		/* A read takes no receive. */
		IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
	}
	meet(side);
}

static void read_scatters(struct side *side)
{
	struct place place = { 0 }, theirs;
	struct buffer buffer;
	VIP_VI_HANDLE vi = rdma_vi(side);
	unsigned long offset = 0;
	VIP_DESCRIPTOR *it;
	unsigned int i;

	needs_read(side);
	buffer = open_buffer(side, &place);
	if (side->role == SECOND)
		fill_pattern(buffer.bytes, SIZE, 5);
	connect_vi(side, vi);
	trade(side, &place, &theirs, sizeof(place));
	if (side->role == FIRST) {
		it = rdma(side, 0, VIP_CONTROL_OP_RDMAREAD, &buffer, 0, 0, theirs.address, theirs.handle);
		for (i = 1; i < 100; i++) {
			VIP_DESCRIPTOR_SEGMENT *segment = it->DS;

			segment[i].Local.Data.Address = buffer.bytes + offset;
			segment[i].Local.Handle = buffer.handle;
			segment[i].Local.Length = i * 13;
			offset += i * 13;
		}
		it->CS.SegCount = 100;
		it->CS.Length = (VIP_UINT32)offset;
		post(side, vi, SENDS, it);
		succeed(side, vi, SENDS, it);
		CHECK(side, has_pattern(buffer.bytes, offset, 5));
	}
	meet(side);
}

/* A descriptor with a fence waits for the reads before it: it may send what they have brought. */
static void fence(struct side *side)
{
	struct place place = { 0 }, theirs;
	struct buffer buffer;
	VIP_VI_HANDLE vi = rdma_vi(side);
	VIP_DESCRIPTOR *it, *send;

	needs_read(side);
	buffer = open_buffer(side, &place);
	if (side->role == SECOND) {
		fill_pattern(buffer.bytes, SIZE / 2, 6);
		it = message(side, 1, &buffer, SIZE / 2, SIZE / 2);
		post(side, vi, RECEIVES, it);
		connect_vi(side, vi);
		trade(side, &place, &theirs, sizeof(place));
		succeed(side, vi, RECEIVES, it);
		CHECK(side, it->CS.Length == SIZE / 2 && has_pattern(buffer.bytes + SIZE / 2, SIZE / 2, 6));
		meet(side);
		return;
	}
	connect_vi(side, vi);
	trade(side, &place, &theirs, sizeof(place));
	it = rdma(side, 1, VIP_CONTROL_OP_RDMAREAD, &buffer, 0, SIZE / 2, theirs.address, theirs.handle);
	send = message(side, 2, &buffer, 0, SIZE / 2);
	send->CS.Control = VIP_CONTROL_QFENCE;
	post(side, vi, SENDS, it);
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, it);
	succeed(side, vi, SENDS, send);
	meet(side);
}

static void read_unsupported(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_DESCRIPTOR *it, *done;
	VIP_RETURN code;

	if (side->attributes.RDMAReadSupport & side->level)
		skip(side, "this NIC reads by RDMA at this level");
	connect_own(side, a, b);
	it = rdma(side, 1, VIP_CONTROL_OP_RDMAREAD, &buffer, 0, 10, 1, 1);
	code = SEEN(side, VipPostSend(a, it, side->descriptors.handle));
	if (code != VIP_INVALID_PARAMETER) {
		IS(side, code, VIP_SUCCESS);
		IS(side, VipSendWait(a, LIMIT, &done), VIP_DESCRIPTOR_ERROR);
	}
	CHECK(side, saw_status(side, it->CS.Status) & (VIP_STATUS_FORMAT_ERROR | VIP_STATUS_RDMA_PROT_ERROR));
	tolerate(side, VIP_ERROR_CONN_LOST);
	tolerate(side, VIP_ERROR_RDMAR_PROT);
}

static const struct test tests[] = {
	{ "a_write_places_its_bytes_and_no_others", "M:h", "status:OP_RDMA_WRITE VipPostSend:VIP_SUCCESS", EACH,
	  write_first, write_second },
	{ "a_write_with_immediate_data_takes_a_receive", "M:h C:mplite",
	  "status:OP_REMOTE_RDMA_WRITE status:IMMEDIATE", EACH, immediate_first, immediate_second },
	{ "the_last_word_comes_last", "C:armci D", "status:OP_RDMA_WRITE", EACH, watched, watched },
	{ "the_target_decides_who_writes", "M:h VG:viperrorcallback",
	  "error:RDMAW_PROT status:RDMA_PROT_ERROR@reliable state:Connected-Error@reliable", EACH, write_refused, write_refused },
	{ "a_refused_write_with_immediate_data_is_told_by_the_receive", "VG:viperrorcallback",
	  "status:PROTECTION_ERROR", EACH, write_immediate_refused, write_immediate_refused },
	{ "a_read_fetches_its_bytes_and_no_others", "M:h", "status:OP_RDMA_READ", RELIABLE, read_first, read_second },
	{ "a_read_scatters", "M:h", "status:OP_RDMA_READ", RELIABLE, read_scatters, read_scatters },
	{ "the_owner_decides_who_reads", "M:h", "error:RDMAR_PROT status:RDMA_PROT_ERROR state:Connected-Error", RELIABLE,
	  read_refused, read_refused },
	{ "a_fence_waits_for_reads", "M:m", "status:OP_RDMA_READ", RELIABLE, fence, fence },
	{ "a_read_where_there_is_none_fails", "M:m", "status:FORMAT_ERROR", EACH, read_unsupported, NULL },
};

const struct group rdma_group = GROUP("rdma", NULL, tests);
