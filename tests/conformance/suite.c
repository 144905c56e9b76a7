/* What tests are made of: roles, memory, descriptors, VIs, connections, errors. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "run.h"

/* The first descriptor has room for the most segments. */
#define DESCRIPTOR_BYTES 128UL
#define LARGE_DESCRIPTOR (64UL + 16UL * MAX_SEGMENTS)
#define DESCRIPTOR_MEMORY (LARGE_DESCRIPTOR + 64UL + DESCRIPTORS * DESCRIPTOR_BYTES)

/* Ending a role */

void fail(struct side *side, const char *file, int line, const char *format, ...)
{
	struct run *run = side->run;
	const char *base = strrchr(file, '/');
	va_list args;
	int length;

	length = snprintf(run->reason, REASON, "%s:%d: ", base != NULL ? base + 1 : file, line);
	va_start(args, format);
	vsnprintf(run->reason + length, REASON - (size_t)length, format, args);
	va_end(args);
	run->outcome = FAILED;
	longjmp(run->end, 1);
}

void skip(struct side *side, const char *why)
{
	snprintf(side->run->reason, REASON, "%s", why);
	side->run->outcome = SKIPPED;
	longjmp(side->run->end, 1);
}

const char *name_of(VIP_RETURN code)
{
	static const char *const names[] = {
		"VIP_SUCCESS",	       "VIP_NOT_DONE",	       "VIP_INVALID_PARAMETER",
		"VIP_ERROR_RESOURCE",  "VIP_TIMEOUT",	       "VIP_REJECT",
		"VIP_INVALID_RELIABILITY_LEVEL", "VIP_INVALID_MTU", "VIP_INVALID_QOS",
		"VIP_INVALID_PTAG",    "VIP_INVALID_RDMAREAD", "VIP_DESCRIPTOR_ERROR",
		"VIP_INVALID_STATE",   "VIP_ERROR_NAMESERVICE", "VIP_NO_MATCH",
		"VIP_NOT_REACHABLE",   "VIP_ERROR_NOT_SUPPORTED",
	};

	return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "an unknown code";
}

/* The other role */

static void transmit(struct side *side, enum kind kind, const void *bytes, size_t length)
{
	struct packet packet;

	memset(&packet, 0, sizeof(packet));
	packet.kind = (VIP_UINT32)kind;
	packet.length = (VIP_UINT32)length;
	memcpy(packet.bytes, bytes, length);
	if (side->channel->send(side->channel, &packet) != 0) {
		fprintf(stderr, "the other role is gone\n");
		exit(2);
	}
}

static void take(struct side *side, struct packet *packet)
{
	struct run *run = side->run;

	if (side->channel->receive(side->channel, packet) != 0) {
		fprintf(stderr, "the other role is gone, or silent\n");
		exit(2);
	}
	packet->bytes[CHANNEL_BYTES - 1] = 0;
	if (packet->kind == END) {
		run->peer_ended = 1;
		run->peer_outcome = (enum outcome)packet->bytes[0];
		memcpy(&run->peer_seen, packet->bytes + 1, sizeof(run->peer_seen));
		snprintf(run->peer_reason, REASON, "%.500s", packet->bytes + 1 + sizeof(run->peer_seen));
	}
}

void trade(struct side *side, const void *mine, void *theirs, size_t length)
{
	struct packet packet;

	if (side->test->second == NULL)
		FAIL(side, "the test has no second role");
	transmit(side, TRADE, mine, length);
	if (!side->run->peer_ended)
		take(side, &packet);
	if (side->run->peer_ended) {
		if (side->run->peer_outcome == SKIPPED)
			skip(side, side->run->peer_reason);
		FAIL(side, "the other role has ended");
	}
	if (packet.kind != TRADE || packet.length != length)
		FAIL(side, "the two roles do not fit together");
	memcpy(theirs, packet.bytes, length);
}

void meet(struct side *side)
{
	char nothing = 0;

	trade(side, &nothing, &nothing, 0);
}

/* Tells how this role has ended, and waits until the other has. */
static void end_together(struct side *side)
{
	struct run *run = side->run;
	struct packet packet;
	char message[1 + sizeof(run->seen) + REASON], *reason = message + 1 + sizeof(run->seen);

	if (side->test->second == NULL)
		return;
	message[0] = (char)run->outcome;
	memcpy(message + 1, &run->seen, sizeof(run->seen));
	snprintf(reason, REASON, "%s", run->reason);
	transmit(side, END, message, (size_t)(reason - message) + strlen(reason) + 1);
	while (!run->peer_ended)
		take(side, &packet);
}

/* Memory */

void *new_memory(struct side *side, unsigned long size, unsigned long alignment)
{
	struct run *run = side->run;
	char *memory = malloc(size + alignment);

	if (memory == NULL || run->memory_count == MAX_MEMORY)
		FAIL(side, "no memory");
	run->memory[run->memory_count++] = memory;
	while ((unsigned long)memory % alignment != 0)
		memory++;
	memset(memory, 0, size);
	return memory;
}

struct buffer new_buffer(struct side *side, unsigned long size, const VIP_MEM_ATTRIBUTES *attributes)
{
	struct buffer buffer;
	VIP_MEM_ATTRIBUTES copy;

	buffer.size = size;
	buffer.bytes = new_memory(side, size, 64);
	if (attributes != NULL)
		copy = *attributes;
	OK(side, VipRegisterMem(side->nic, buffer.bytes, size, attributes != NULL ? &copy : NULL, &buffer.handle));
	if (buffer.handle == 0 || buffer.handle == 0xffffffff)
		FAIL(side, "the memory handle is one that programs take for a failure");
	return buffer;
}

VIP_DESCRIPTOR *descriptor(struct side *side, unsigned int index)
{
	unsigned long offset = index == 0 ? 0 : LARGE_DESCRIPTOR + (64 - LARGE_DESCRIPTOR % 64) % 64 +
							(index - 1) * DESCRIPTOR_BYTES;
	VIP_DESCRIPTOR *descriptor;

	if (side->descriptors.bytes == NULL)
		side->descriptors = new_buffer(side, DESCRIPTOR_MEMORY, NULL);
	if (index >= DESCRIPTORS)
		FAIL(side, "a test uses more descriptors than there are");
	descriptor = (VIP_DESCRIPTOR *)(void *)(side->descriptors.bytes + offset);
	memset(descriptor, 0, index == 0 ? LARGE_DESCRIPTOR : DESCRIPTOR_BYTES);
	return descriptor;
}

void fill_pattern(char *bytes, unsigned long length, unsigned int seed)
{
	unsigned long i;

	for (i = 0; i < length; i++)
		bytes[i] = (char)((i * 31 + i / 251 + seed * 17 + 1) & 0x7f);
}

int has_pattern(const char *bytes, unsigned long length, unsigned int seed)
{
	unsigned long i;

	for (i = 0; i < length; i++)
		if (bytes[i] != (char)((i * 31 + i / 251 + seed * 17 + 1) & 0x7f))
			return 0;
	return 1;
}

static void set_segment(VIP_DATA_SEGMENT *segment, const struct buffer *buffer, unsigned long offset,
			unsigned long length)
{
	segment->Data.AddressBits = 0;
	segment->Data.Address = buffer->bytes + offset;
	segment->Handle = buffer->handle;
	segment->Length = (VIP_UINT32)length;
}

VIP_DESCRIPTOR *message(struct side *side, unsigned int index, const struct buffer *buffer, unsigned long offset,
			unsigned long length)
{
	VIP_DESCRIPTOR *result = descriptor(side, index);

	result->CS.SegCount = 1;
	result->CS.Length = (VIP_UINT32)length;
	set_segment(&result->DS[0].Local, buffer, offset, length);
	return result;
}

VIP_DESCRIPTOR *rdma(struct side *side, unsigned int index, VIP_UINT16 operation, const struct buffer *buffer,
		     unsigned long offset, unsigned long length, VIP_UINT64 remote, VIP_MEM_HANDLE handle)
{
	VIP_DESCRIPTOR *result = descriptor(side, index);

	result->CS.SegCount = 2;
	result->CS.Control = operation;
	result->CS.Length = (VIP_UINT32)length;
	result->DS[0].Remote.Data.AddressBits = remote;
	result->DS[0].Remote.Handle = handle;
	set_segment(&result->DS[1].Local, buffer, offset, length);
	return result;
}

void post(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *what)
{
	if (queue == SENDS)
		OK(side, VipPostSend(vi, what, side->descriptors.handle));
	else
		OK(side, VipPostRecv(vi, what, side->descriptors.handle));
}

VIP_UINT32 finish(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *expected)
{
	VIP_DESCRIPTOR *done = expected;
	VIP_RETURN code;
	VIP_UINT32 status;

	code = queue == SENDS ? VipSendWait(vi, LIMIT, &done) : VipRecvWait(vi, LIMIT, &done);
	saw_return(side, queue == SENDS ? "VipSendWait" : "VipRecvWait", code);
	if (code == VIP_TIMEOUT)
		FAIL(side, "a %s does not complete", queue == SENDS ? "send" : "receive");
	if (done != expected)
		FAIL(side, "another descriptor came back than the oldest (%s)", name_of(code));
	status = done->CS.Status;
	if (!(status & VIP_STATUS_DONE))
		FAIL(side, "a descriptor came back that is not done");
	if ((code == VIP_DESCRIPTOR_ERROR) != ((status & VIP_STATUS_ERROR_MASK) != 0))
		FAIL(side, "%s, but status %08x", name_of(code), (unsigned int)status);
	if (status & VIP_STATUS_RESERVED)
		FAIL(side, "reserved bits in status %08x", (unsigned int)status);
	return saw_status(side, status);
}

void succeed(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *expected)
{
	VIP_UINT32 status = finish(side, vi, queue, expected);

	if (status & VIP_STATUS_ERROR_MASK)
		FAIL(side, "a %s failed: status %08x", queue == SENDS ? "send" : "receive", (unsigned int)status);
}

void is_empty(struct side *side, VIP_VI_HANDLE vi, enum queue queue)
{
	VIP_DESCRIPTOR *done = descriptor(side, DESCRIPTORS - 1);

	if (queue == SENDS)
		IS(side, VipSendDone(vi, &done), VIP_DESCRIPTOR_ERROR);
	else
		IS(side, VipRecvDone(vi, &done), VIP_DESCRIPTOR_ERROR);
	if (done != NULL)
		FAIL(side, "an empty queue gives a descriptor");
}

/* VIs */

VIP_VI_ATTRIBUTES vi_attributes(const struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = side->level;
	attributes.MaxTransferSize = side->attributes.MaxTransferSize;
	return attributes;
}

VIP_VI_HANDLE new_vi_with(struct side *side, const VIP_VI_ATTRIBUTES *attributes, VIP_CQ_HANDLE send_cq,
			  VIP_CQ_HANDLE receive_cq)
{
	VIP_VI_ATTRIBUTES copy = *attributes;
	VIP_VI_HANDLE vi = NULL;

	OK(side, VipCreateVi(side->nic, &copy, send_cq, receive_cq, &vi));
	CHECK(side, vi != NULL);
	forget_vi(side->run, vi);
	if (state_of(side, vi) != VIP_STATE_IDLE)
		FAIL(side, "a new VI is not Idle");
	saw_states(side, "create-Idle");
	return vi;
}

VIP_VI_HANDLE new_vi(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);

	return new_vi_with(side, &attributes, NULL, NULL);
}

VIP_VI_STATE state_of(struct side *side, VIP_VI_HANDLE vi)
{
	VIP_VI_ATTRIBUTES attributes;
	VIP_BOOLEAN sends_empty, receives_empty;
	VIP_VI_STATE state;

	OK(side, VipQueryVi(vi, &state, &attributes, &sends_empty, &receives_empty));
	saw_state(side, vi, state);
	return state;
}

/* VIA has no way to be told of a state: programs look. */
void becomes(struct side *side, VIP_VI_HANDLE vi, VIP_VI_STATE state)
{
	const struct timespec pause = { 0, 200000 };
	unsigned long limit = now_ms() + LIMIT;

	while (state_of(side, vi) != state) {
		if (now_ms() > limit)
			FAIL(side, "the VI is in state %d, not %d", (int)state_of(side, vi), (int)state);
		nanosleep(&pause, NULL);
	}
}

/* Connections */

static union address address_at(const struct side *side, const unsigned char *host, const char *discriminator)
{
	union address address;
	size_t length = side->attributes.NicAddressLen;
	int written;

	memset(&address, 0, sizeof(address));
	address.net.HostAddressLen = (VIP_UINT16)length;
	memcpy(address.net.HostAddress, host, length);
	/* At most 16 bytes, the least that a NIC must take. */
	written = snprintf((char *)address.net.HostAddress + length, 17, "%lu.%s", side->number, discriminator);
	address.net.DiscriminatorLen = (VIP_UINT16)(written < 16 ? written : 16);
	return address;
}

union address peer_address(const struct side *side, const char *discriminator)
{
	return address_at(side, side->peer_host, discriminator);
}

union address own_address(const struct side *side, const char *discriminator)
{
	return address_at(side, side->own_host, discriminator);
}

VIP_CONN_HANDLE await_request(struct side *side, const char *discriminator, VIP_VI_ATTRIBUTES *attributes)
{
	union address local = own_address(side, discriminator), remote;
	VIP_CONN_HANDLE connection = NULL;

	OK(side, VipConnectWait(side->nic, &local.net, LIMIT, &remote.net, attributes, &connection));
	CHECK(side, connection != NULL);
	return connection;
}

static void ask(struct side *side, VIP_VI_HANDLE vi, union address remote)
{
	const struct timespec pause = { 0, 200000 };
	union address local = own_address(side, "ask");
	VIP_VI_ATTRIBUTES attributes;
	unsigned long limit = now_ms() + LIMIT;
	VIP_RETURN code;

	while ((code = SEEN(side, VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes))) == VIP_NO_MATCH &&
	       now_ms() < limit)
		nanosleep(&pause, NULL);
	IS(side, code, VIP_SUCCESS);
}

void connect_as(struct side *side, VIP_VI_HANDLE vi, const char *discriminator)
{
	VIP_VI_ATTRIBUTES attributes;

	if (side->role == FIRST)
		ask(side, vi, peer_address(side, discriminator));
	else
		OK(side, VipConnectAccept(await_request(side, discriminator, &attributes), vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	meet(side);
}

void connect_vi(struct side *side, VIP_VI_HANDLE vi)
{
	connect_as(side, vi, "c");
}

static void accept_own(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;

	OK(side, VipConnectAccept(await_request(side, "own", &attributes), side->argument));
}

void connect_own(struct side *side, VIP_VI_HANDLE asking, VIP_VI_HANDLE accepting)
{
	in_thread(side, accept_own, accepting);
	ask(side, asking, own_address(side, "own"));
	join(side);
}

/* Errors */

void error_handler(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
	struct side *side = context;
	struct run *run = side->run;

	pthread_mutex_lock(&run->lock);
	if (run->error_count < MAX_ERRORS) {
		run->errors[run->error_count++] = *error;
	}
	pthread_cond_broadcast(&run->error_came);
	pthread_mutex_unlock(&run->lock);
}

/* Takes the oldest error of a code out of those that have come. */
static int take_error(struct run *run, VIP_ERROR_CODE code, VIP_ERROR_DESCRIPTOR *found)
{
	unsigned int i;

	for (i = 0; i < run->error_count; i++)
		if (run->errors[i].ErrorCode == code) {
			*found = run->errors[i];
			run->error_count--;
			memmove(&run->errors[i], &run->errors[i + 1], (run->error_count - i) * sizeof(*found));
			return 1;
		}
	return 0;
}

VIP_ERROR_DESCRIPTOR await_error(struct side *side, VIP_ERROR_CODE code)
{
	struct run *run = side->run;
	VIP_ERROR_DESCRIPTOR found;
	struct timespec limit;
	int taken, waited = 0;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += LIMIT / 1000;
	memset(&found, 0, sizeof(found));
	pthread_mutex_lock(&run->lock);
	while (!(taken = take_error(run, code, &found)) && waited == 0)
		waited = pthread_cond_timedwait(&run->error_came, &run->lock, &limit);
	pthread_mutex_unlock(&run->lock);
	if (!taken)
		FAIL(side, "error %d does not come", (int)code);
	if (found.NicHandle != side->nic)
		FAIL(side, "error %d is another NIC's", (int)code);
	saw_error(side, code);
	return found;
}

void tolerate(struct side *side, VIP_ERROR_CODE code)
{
	pthread_mutex_lock(&side->run->lock);
	side->run->tolerated |= 1UL << code;
	pthread_mutex_unlock(&side->run->lock);
}

static void no_other_errors(struct side *side)
{
	struct run *run = side->run;
	int code = -1;
	unsigned int i;

	pthread_mutex_lock(&run->lock);
	for (i = 0; i < run->error_count; i++)
		if (!(run->tolerated & 1UL << run->errors[i].ErrorCode))
			code = (int)run->errors[i].ErrorCode;
	pthread_mutex_unlock(&run->lock);
	if (code >= 0)
		FAIL(side, "error %d came, for which there is no reason", code);
}

/* Threads and time */

unsigned long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

/* A thread has a run of its own, so that it can fail by itself. */
static void *run_thread(void *context)
{
	struct side *side = context;

	if (setjmp(side->run->end) == 0)
		side->run->thread_body(side);
	return NULL;
}

void in_thread(struct side *side, void (*body)(struct side *side), void *argument)
{
	struct side *copy = new_memory(side, sizeof(*copy), 16);
	struct run *run = new_memory(side, sizeof(*run), 16);
	unsigned int number = side->run->thread_count;

	if (number == MAX_THREADS)
		FAIL(side, "a role has more threads than there may be");
	*copy = *side;
	copy->run = run;
	copy->argument = argument;
	pthread_mutex_init(&run->lock, NULL);
	pthread_cond_init(&run->error_came, NULL);
	run->outcome = PASSED;
	run->thread_body = body;
	side->run->thread_sides[number] = copy;
	if (pthread_create(&side->run->threads[number], NULL, run_thread, copy) != 0)
		FAIL(side, "no thread");
	side->run->thread_count++;
}

/* Joins without judging. */
static void end_threads(struct run *run)
{
	unsigned int i, j;

	for (i = 0; i < run->thread_count; i++) {
		struct run *thread = run->thread_sides[i]->run;

		pthread_join(run->threads[i], NULL);
		run->seen |= thread->seen;
		if (run->thread_failure == NULL && thread->outcome != PASSED)
			run->thread_failure = thread;
		for (j = 0; j < thread->memory_count; j++)
			free(thread->memory[j]);
	}
	run->thread_count = 0;
}

void join(struct side *side)
{
	struct run *run = side->run;

	if (run->thread_count == 0)
		FAIL(side, "there is no thread");
	end_threads(run);
	if (run->thread_failure == NULL)
		return;
	if (run->thread_failure->outcome == SKIPPED)
		skip(side, run->thread_failure->reason);
	FAIL(side, "in a thread: %s", run->thread_failure->reason);
}

void close_under(struct side *side, void *(*prepare)(struct side *side), void (*wait)(struct side *side))
{
	struct timespec pause = { 0, 0 };
	VIP_NIC_HANDLE nic;
	int i;

	for (i = 0; i < 12; i++) {
		if (side->nic == NULL)
			OK(side, VipOpenNic(side->nic_name, &side->nic));
		memset(&side->descriptors, 0, sizeof(side->descriptors));
		in_thread(side, wait, prepare(side));
		nanosleep(&pause, NULL);
		nic = side->nic;
		side->nic = NULL;
		OK(side, VipCloseNic(nic));
		join(side);
		if (unseen_word(side->test->covers, side->level, side->run->seen) == NULL)
			return;
		pause.tv_nsec = pause.tv_nsec == 0 ? 100000 : 2 * pause.tv_nsec;
	}
}

/* A role from its beginning to its end */

static void begin(struct side *side)
{
	OK(side, VipOpenNic(side->nic_name, &side->nic));
	OK(side, VipQueryNic(side->nic, &side->attributes));
	CHECK(side, side->attributes.NicAddressLen <= MAX_HOST);
	memcpy(side->own_host, side->attributes.LocalNicAddress, side->attributes.NicAddressLen);
	OK(side, VipErrorCallback(side->nic, side, error_handler));
}

void run_role(struct side *side, struct run *run)
{
	void (*body)(struct side *side) = side->role == FIRST ? side->test->first : side->test->second;
	unsigned int i;

	memset(run, 0, sizeof(*run));
	pthread_mutex_init(&run->lock, NULL);
	pthread_cond_init(&run->error_came, NULL);
	side->run = run;
	side->nic = NULL;
	memset(&side->descriptors, 0, sizeof(side->descriptors));
	run->outcome = PASSED;
	if (setjmp(run->end) == 0) {
		begin(side);
		body(side);
		no_other_errors(side);
	}
	end_together(side);
	/* Ends what a thread waits for. A test may have closed the NIC itself. */
	if (side->nic != NULL)
		VipCloseNic(side->nic);
	end_threads(run);
	for (i = 0; i < run->memory_count; i++)
		free(run->memory[i]);
	pthread_mutex_destroy(&run->lock);
	pthread_cond_destroy(&run->error_came);
}
