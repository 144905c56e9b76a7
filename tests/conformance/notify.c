/* Handlers for one completion. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "suite.h"

#define CALLS 64

/* What handlers were called with, in order. */
struct calls {
	pthread_mutex_t lock;
	pthread_cond_t came;
	unsigned int count;
	struct {
		/* The number that the registration had. */
		unsigned long registration;
		pthread_t thread;
		VIP_NIC_HANDLE nic;
		VIP_VI_HANDLE vi;
		/* Of a work queue: the descriptor. Of a completion queue: whether it was a receive. */
		VIP_DESCRIPTOR *descriptor;
		VIP_BOOLEAN receive;
	} all[CALLS];
	/* Of a handler that registers again: how often it still does. */
	unsigned int again;
};

struct registration {
	struct calls *calls;
	unsigned long number;
};

static struct calls *new_calls(struct side *side)
{
	struct calls *calls = new_memory(side, sizeof(*calls), 16);

	pthread_mutex_init(&calls->lock, NULL);
	pthread_cond_init(&calls->came, NULL);
	return calls;
}

static void *registration(struct side *side, struct calls *calls, unsigned long number)
{
	struct registration *it = new_memory(side, sizeof(*it), 16);

	it->calls = calls;
	it->number = number;
	return it;
}

static void called(const struct registration *it, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_DESCRIPTOR *descriptor,
		   VIP_BOOLEAN receive)
{
	struct calls *calls = it->calls;

	pthread_mutex_lock(&calls->lock);
	if (calls->count < CALLS) {
		calls->all[calls->count].registration = it->number;
		calls->all[calls->count].thread = pthread_self();
		calls->all[calls->count].nic = nic;
		calls->all[calls->count].vi = vi;
		calls->all[calls->count].descriptor = descriptor;
		calls->all[calls->count].receive = receive;
		calls->count++;
	}
	pthread_cond_broadcast(&calls->came);
	pthread_mutex_unlock(&calls->lock);
}

static void on_descriptor(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_DESCRIPTOR *descriptor)
{
	called(context, nic, vi, descriptor, 7);
}

static void on_entry(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_BOOLEAN receive)
{
	called(context, nic, vi, NULL, receive);
}

/* Waits until handlers were called so often. */
static void await_calls(struct side *side, struct calls *calls, unsigned int count)
{
	struct timespec limit;
	unsigned int reached;
	int waited = 0;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += LIMIT / 1000;
	pthread_mutex_lock(&calls->lock);
	while (calls->count < count && waited == 0)
		waited = pthread_cond_timedwait(&calls->came, &calls->lock, &limit);
	reached = calls->count;
	pthread_mutex_unlock(&calls->lock);
	if (reached < count)
		FAIL(side, "handlers were called %u times, not %u", reached, count);
}

/* A call was on a thread of the provider, and about this. */
static void check_call(struct side *side, const struct calls *calls, unsigned int call, unsigned long number,
		       VIP_VI_HANDLE vi)
{
	CHECK(side, !pthread_equal(calls->all[call].thread, pthread_self()));
	CHECK(side, calls->all[call].nic == side->nic && calls->all[call].vi == vi);
	CHECK(side, calls->all[call].registration == number);
}

static void bad_calls(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_VI_HANDLE vi = new_vi(side), attached;
	VIP_CQ_HANDLE cq;

	OK(side, VipCreateCQ(side->nic, 4, &cq));
	attached = new_vi_with(side, &attributes, cq, cq);
	IS(side, VipSendNotify(NULL, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipSendNotify(&vi, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipSendNotify(vi, side, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipSendNotify(attached, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipRecvNotify(NULL, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipRecvNotify(&vi, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipRecvNotify(vi, side, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipRecvNotify(attached, side, on_descriptor), VIP_INVALID_PARAMETER);
	IS(side, VipCQNotify(NULL, side, on_entry), VIP_INVALID_PARAMETER);
	IS(side, VipCQNotify(vi, side, on_entry), VIP_INVALID_PARAMETER);
	IS(side, VipCQNotify(cq, side, NULL), VIP_INVALID_PARAMETER);
}

/* Each registration is for one descriptor, in order; the last message has no registration. */
static void receives_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 400, NULL);
	struct calls *calls = new_calls(side);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receives[4];
	unsigned int i;

	for (i = 0; i < 4; i++) {
		receives[i] = message(side, i + 1, &buffer, i * 100, 100);
		post(side, vi, RECEIVES, receives[i]);
	}
	for (i = 0; i < 3; i++)
		OK(side, VipRecvNotify(vi, registration(side, calls, 10 + i), on_descriptor));
	connect_vi(side, vi);
	await_calls(side, calls, 3);
	meet(side);
	for (i = 0; i < 3; i++) {
		check_call(side, calls, i, 10 + i, vi);
		CHECK(side, calls->all[i].descriptor == receives[i]);
		CHECK(side, saw_status(side, receives[i]->CS.Status) ==
				    (VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_IMMEDIATE));
		CHECK(side, receives[i]->CS.Length == i && receives[i]->CS.ImmediateData == i);
	}
	/* The handler's are gone from the queue; the fourth is there. */
	succeed(side, vi, RECEIVES, receives[3]);
	is_empty(side, vi, RECEIVES);
	CHECK(side, calls->count == 3);
	meet(side);
}

static void receives_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *send;
	unsigned int i;

	connect_vi(side, vi);
	for (i = 0; i < 4; i++) {
		send = message(side, i + 1, &buffer, 0, i);
		send->CS.Control = VIP_CONTROL_IMMEDIATE;
		send->CS.ImmediateData = i;
		post(side, vi, SENDS, send);
		succeed(side, vi, SENDS, send);
	}
	meet(side);
	meet(side);
}

/* Before the send, and after it is complete. */
static void sends(struct side *side)
{
	struct calls *calls = new_calls(side);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *it = descriptor(side, 1);
	const volatile VIP_UINT32 *status = &it->CS.Status;
	unsigned long limit = now_ms() + LIMIT;

	if (side->role == SECOND) {
		post(side, vi, RECEIVES, it);
		it = descriptor(side, 2);
		post(side, vi, RECEIVES, it);
		connect_vi(side, vi);
		meet(side);
		return;
	}
	connect_vi(side, vi);
	/* On an empty queue it waits for what will be posted. */
	OK(side, VipSendNotify(vi, registration(side, calls, 1), on_descriptor));
	post(side, vi, SENDS, it);
	await_calls(side, calls, 1);
	check_call(side, calls, 0, 1, vi);
	CHECK(side, calls->all[0].descriptor == it);
	it = descriptor(side, 1);
	post(side, vi, SENDS, it);
	while (!(*status & VIP_STATUS_DONE) && now_ms() < limit)
		;
	OK(side, VipSendNotify(vi, registration(side, calls, 2), on_descriptor));
	await_calls(side, calls, 2);
	check_call(side, calls, 1, 2, vi);
	CHECK(side, calls->all[1].descriptor == it);
	is_empty(side, vi, SENDS);
	meet(side);
}

/* The entry goes to the handler; the descriptor stays where it is. */
static void entries(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct calls *calls = new_calls(side);
	VIP_VI_HANDLE a, b, found;
	VIP_DESCRIPTOR *done, *it;
	VIP_CQ_HANDLE cq;
	VIP_BOOLEAN receive;
	unsigned int i;

	OK(side, VipCreateCQ(side->nic, 8, &cq));
	a = new_vi(side);
	b = new_vi_with(side, &attributes, NULL, cq);
	connect_own(side, a, b);
	for (i = 0; i < 3; i++)
		post(side, b, RECEIVES, descriptor(side, i + 1));
	OK(side, VipCQNotify(cq, registration(side, calls, 1), on_entry));
	OK(side, VipCQNotify(cq, registration(side, calls, 2), on_entry));
	for (i = 0; i < 3; i++) {
		it = descriptor(side, 10 + i);
		post(side, a, SENDS, it);
		succeed(side, a, SENDS, it);
	}
	await_calls(side, calls, 2);
	for (i = 0; i < 2; i++) {
		check_call(side, calls, i, 1 + i, b);
		CHECK(side, calls->all[i].receive == VIP_TRUE);
		OK(side, VipRecvDone(b, &done));
	}
	OK(side, VipCQWait(cq, LIMIT, &found, &receive));
	CHECK(side, found == b && receive == VIP_TRUE);
	OK(side, VipRecvDone(b, &done));
	/* An entry that is there already. */
	post(side, b, RECEIVES, descriptor(side, 1));
	it = descriptor(side, 10);
	post(side, a, SENDS, it);
	succeed(side, a, SENDS, it);
	OK(side, VipCQNotify(cq, registration(side, calls, 3), on_entry));
	await_calls(side, calls, 3);
	check_call(side, calls, 2, 3, b);
	IS(side, VipCQDone(cq, &found, &receive), VIP_NOT_DONE);
	CHECK(side, calls->count == 3);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void again(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_DESCRIPTOR *descriptor)
{
	const struct registration *it = context;
	unsigned int more;

	pthread_mutex_lock(&it->calls->lock);
	more = it->calls->again;
	it->calls->again -= more != 0;
	pthread_mutex_unlock(&it->calls->lock);
	/* A refusal shows by calls that do not come. */
	if (more != 0)
		VipRecvNotify(vi, context, again);
	called(context, nic, vi, descriptor, 7);
}

#define AGAIN 40

static void handlers_register(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	struct calls *calls = new_calls(side);
	VIP_DESCRIPTOR *receives[AGAIN];
	unsigned int i;

	connect_own(side, a, b);
	for (i = 0; i < AGAIN; i++) {
		receives[i] = descriptor(side, 1 + i);
		post(side, b, RECEIVES, receives[i]);
	}
	calls->again = AGAIN - 1;
	OK(side, VipRecvNotify(b, registration(side, calls, 1), again));
	for (i = 0; i < AGAIN; i++) {
		VIP_DESCRIPTOR *it = descriptor(side, 50);

		post(side, a, SENDS, it);
		succeed(side, a, SENDS, it);
	}
	await_calls(side, calls, AGAIN);
	for (i = 0; i < AGAIN; i++)
		CHECK(side, calls->all[i].descriptor == receives[i]);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void errors_too(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	struct calls *calls = new_calls(side);
	VIP_DESCRIPTOR *receive = descriptor(side, 1);

	post(side, b, RECEIVES, receive);
	connect_own(side, a, b);
	OK(side, VipRecvNotify(b, registration(side, calls, 1), on_descriptor));
	OK(side, VipDisconnect(a));
	await_calls(side, calls, 1);
	check_call(side, calls, 0, 1, b);
	CHECK(side, calls->all[0].descriptor == receive);
	CHECK(side, saw_status(side, receive->CS.Status) & VIP_STATUS_DESC_FLUSHED_ERROR);
	await_error(side, VIP_ERROR_CONN_LOST);
}

/* Registrations end with what they are for. */
static void cancelled(struct side *side)
{
	struct calls *calls = new_calls(side);
	VIP_NIC_HANDLE nic = side->nic;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_CQ_HANDLE cq;

	post(side, vi, RECEIVES, descriptor(side, 1));
	OK(side, VipRecvNotify(vi, registration(side, calls, 1), on_descriptor));
	OK(side, VipSendNotify(vi, registration(side, calls, 2), on_descriptor));
	OK(side, VipDestroyVi(vi));
	OK(side, VipCreateCQ(side->nic, 4, &cq));
	OK(side, VipCQNotify(cq, registration(side, calls, 3), on_entry));
	OK(side, VipDestroyCQ(cq));
	vi = new_vi(side);
	post(side, vi, RECEIVES, descriptor(side, 2));
	OK(side, VipRecvNotify(vi, registration(side, calls, 4), on_descriptor));
	side->nic = NULL;
	OK(side, VipCloseNic(nic));
	/* No handler is called once the NIC is closed, so the count is final. */
	CHECK(side, calls->count == 0);
}

#define THREADS 1024
/* Bytes that a thread's stack has; systems may keep larger ones of threads that have ended, up to four times as large. */
#define STACK (2UL << 20)
/* Bytes that are left for everything but threads. */
#define LEFT (1UL << 20)

/* Threads that only exist, so that no more can. */
struct crowd {
	pthread_mutex_t lock;
	pthread_t threads[THREADS];
	unsigned int count;
	struct rlimit limit;
};

static void *exist(void *context)
{
	struct crowd *crowd = context;

	pthread_mutex_lock(&crowd->lock);
	pthread_mutex_unlock(&crowd->lock);
	return NULL;
}

/* Leaves no room in the address space for one more stack, not even among those of threads that have ended. */
static void fill(struct side *side, struct crowd *crowd)
{
	struct rlimit limit;
	unsigned long pages;
	pthread_attr_t attributes;
	FILE *sizes = fopen("/proc/self/statm", "r");

	if (sizes == NULL)
		skip(side, "this system does not tell how much memory a process has");
	CHECK(side, fscanf(sizes, "%lu", &pages) == 1);
	fclose(sizes);
	pthread_mutex_init(&crowd->lock, NULL);
	pthread_mutex_lock(&crowd->lock);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	CHECK(side, getrlimit(RLIMIT_AS, &crowd->limit) == 0);
	limit = crowd->limit;
	limit.rlim_cur = pages * (unsigned long)sysconf(_SC_PAGESIZE) + LEFT;
	CHECK(side, setrlimit(RLIMIT_AS, &limit) == 0);
	while (crowd->count < THREADS &&
	       pthread_create(&crowd->threads[crowd->count], &attributes, exist, crowd) == 0)
		crowd->count++;
}

static void leave(struct crowd *crowd)
{
	setrlimit(RLIMIT_AS, &crowd->limit);
	pthread_mutex_unlock(&crowd->lock);
	while (crowd->count > 0)
		pthread_join(crowd->threads[--crowd->count], NULL);
}

/* Sets handlers of a NIC that has no thread yet, while there can be none. Returns whether all were refused. */
static int set_handlers(struct side *side, struct crowd *crowd)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	struct calls *calls = new_calls(side);
	VIP_DESCRIPTOR *it = descriptor(side, 1);
	int refused = 0, i;
	VIP_MEM_HANDLE memory;
	VIP_RETURN codes[4];
	VIP_NIC_HANDLE nic;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE vi;

	OK(side, VipOpenNic(side->nic_name, &nic));
	OK(side, VipRegisterMem(nic, it, sizeof(*it), NULL, &memory));
	OK(side, VipCreateVi(nic, &attributes, NULL, NULL, &vi));
	OK(side, VipCreateCQ(nic, 4, &cq));
	fill(side, crowd);
	codes[0] = SEEN(side, VipErrorCallback(nic, side, error_handler));
	codes[1] = SEEN(side, VipSendNotify(vi, registration(side, calls, 1), on_descriptor));
	codes[2] = SEEN(side, VipRecvNotify(vi, registration(side, calls, 1), on_descriptor));
	codes[3] = SEEN(side, VipCQNotify(cq, registration(side, calls, 1), on_entry));
	leave(crowd);
	for (i = 0; i < 4; i++) {
		CHECK(side, codes[i] == VIP_ERROR_RESOURCE || codes[i] == VIP_SUCCESS);
		refused += codes[i] == VIP_ERROR_RESOURCE;
	}
	/* What was refused is not registered, and now there is room. */
	OK(side, VipErrorCallback(nic, NULL, NULL));
	OK(side, VipSendNotify(vi, registration(side, calls, 2), on_descriptor));
	OK(side, VipPostSend(vi, it, memory));
	await_calls(side, calls, 1);
	CHECK(side, calls->all[0].descriptor == it);
	CHECK(side, calls->all[0].registration == (codes[1] == VIP_SUCCESS ? 1UL : 2UL));
	OK(side, VipCloseNic(nic));
	return refused == 4;
}

/* Threads of others may end meanwhile and make room, so it is tried again. */
static void no_threads(struct side *side)
{
	struct crowd *crowd = new_memory(side, sizeof(*crowd), 16);
	int i;

	for (i = 0; i < 10 && !set_handlers(side, crowd); i++)
		;
}

static const struct test tests[] = {
	{ "bad_parameters", "D M:l",
	  "VipSendNotify:VIP_INVALID_PARAMETER VipRecvNotify:VIP_INVALID_PARAMETER VipCQNotify:VIP_INVALID_PARAMETER",
	  ONCE, bad_calls, NULL },
	{ "a_registration_is_good_for_one_receive", "VG:vipcqnotify M:m",
	  "VipRecvNotify:VIP_SUCCESS status:DONE status:OP_RECEIVE status:IMMEDIATE", EACH, receives_first,
	  receives_second },
	{ "a_send_calls_its_handler", "VG:vipcqnotify M:m D", "VipSendNotify:VIP_SUCCESS", EACH, sends, sends },
	{ "an_entry_calls_its_handler", "VG:vipcqnotify", "VipCQNotify:VIP_SUCCESS", EACH, entries, NULL },
	{ "a_handler_may_register_again", "VG:vipcqnotify", "VipRecvNotify:VIP_SUCCESS", EACH, handlers_register, NULL },
	{ "a_flushed_descriptor_calls_its_handler", "M:m", "VipRecvNotify:VIP_SUCCESS status:DESC_FLUSHED_ERROR", EACH,
	  errors_too, NULL },
	{ "registrations_end_with_their_queue", "VG:vipcqnotify",
	  "VipRecvNotify:VIP_SUCCESS VipSendNotify:VIP_SUCCESS VipCQNotify:VIP_SUCCESS", ONCE, cancelled, NULL },
	{ "no_handler_without_a_thread", "D",
	  "VipErrorCallback:VIP_ERROR_RESOURCE VipSendNotify:VIP_ERROR_RESOURCE VipRecvNotify:VIP_ERROR_RESOURCE "
	  "VipCQNotify:VIP_ERROR_RESOURCE",
	  ONCE, no_threads, NULL },
};

const struct group notify_group = GROUP("notify", NULL, tests);
