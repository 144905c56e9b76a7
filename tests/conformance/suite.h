/*
 * The conformance suite of VIPL: what its tests are made of.
 *
 * A test has one or two roles. The first and the second are two threads of one process, or two processes, perhaps on
 * two machines; the code is the same. Each role has a NIC handle of its own, opened for the test and closed after it.
 * The roles meet and trade bytes over a channel beside the test.
 *
 * A check that fails ends the role at once; the other role learns of it when it next meets it. Everything in a test that
 * blocks has a limit.
 */
#ifndef SUITE_H
#define SUITE_H

#include <stddef.h>

#include <vipl.h>

/* Milliseconds that anything may take that must happen. */
#define LIMIT 10000UL
/* Milliseconds that a wait for something takes that must not happen. */
#define SHORT 30UL

#define MAX_HOST 16
#define MAX_ADDRESS 64
#define DESCRIPTORS 64
#define MAX_SEGMENTS 252

enum role { FIRST, SECOND };

/* How often a test runs. */
enum levels {
	ONCE,	 /* at Reliable Delivery */
	EACH,	 /* at each reliability level of the NIC */
	RELIABLE /* at each level that breaks the connection on an error */
};

enum queue { SENDS, RECEIVES };

struct side;
struct channel;

struct test {
	const char *name;
	/* Where the expectation comes from: a source and a confidence, as "VG:viprecvdone", "M:h", "D". */
	const char *source;
	/* What it shows, in the words of cover.h. */
	const char *covers;
	enum levels levels;
	void (*first)(struct side *side);
	/* NULL: the test has one role. */
	void (*second)(struct side *side);
};

struct group {
	const char *name;
	/* What must be wrong outside, so that the tests can be made: "drop", "fail" and so on. NULL: nothing may be. */
	const char *needs;
	const struct test *tests;
	size_t count;
};

/* Memory that is registered. */
struct buffer {
	char *bytes;
	unsigned long size;
	VIP_MEM_HANDLE handle;
};

/* An address with room behind it. */
union address {
	VIP_NET_ADDRESS net;
	unsigned char bytes[MAX_ADDRESS];
};

/* A role's side of a running test. */
struct side {
	enum role role;
	const struct test *test;
	VIP_RELIABILITY_LEVEL level;
	struct channel *channel;
	const char *nic_name;
	VIP_NIC_HANDLE nic;
	VIP_NIC_ATTRIBUTES attributes;
	/* This role's NIC, also when it is closed, and the other role's. */
	unsigned char own_host[MAX_HOST], peer_host[MAX_HOST];
	/* Different for each run of a test. */
	unsigned long number;
	/* How many connections the scale tests make. */
	unsigned long cycles;
	/* Descriptors to use, 64-byte aligned, with room for MAX_SEGMENTS each only in the first. */
	struct buffer descriptors;
	struct run *run;
	/* What in_thread() was given. */
	void *argument;
	/* A command that makes the NIC fail. */
	const char *fail_command;
};

/* Ends the role. */
#if defined(__GNUC__)
#define NORETURN __attribute__((noreturn))
#define PRINTF(text, values) __attribute__((format(printf, text, values)))
#else
#define NORETURN
#define PRINTF(text, values)
#endif
NORETURN PRINTF(4, 5) void fail(struct side *side, const char *file, int line, const char *format, ...);
/* Ends the role; the test cannot be made here. */
NORETURN void skip(struct side *side, const char *why);

#define FAIL(side, ...) fail((side), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK(side, condition)                                  \
	do {                                                    \
		if (!(condition))                               \
			FAIL((side), "not so: %s", #condition); \
	} while (0)
/* A call returns what it must. */
#define IS(side, call, expected)                                                         \
	do {                                                                             \
		VIP_RETURN returned_ = SEEN((side), call);                               \
		if (returned_ != (expected))                                             \
			FAIL((side), "%s returned %s, not %s", #call, name_of(returned_), \
			     name_of(expected));                                         \
	} while (0)
#define OK(side, call) IS(side, call, VIP_SUCCESS)

const char *name_of(VIP_RETURN code);

/* What the test has seen of what it covers. Most is seen by the functions below, or by IS and OK. */

/* `call` is a call's text, or only the function's name. Returns the code. */
VIP_RETURN saw_return(struct side *side, const char *call, VIP_RETURN code);
#define SEEN(side, call) saw_return((side), #call, (call))
/* Returns the status. */
VIP_UINT32 saw_status(struct side *side, VIP_UINT32 status);
void saw_error(struct side *side, VIP_ERROR_CODE code);
/* As "Idle-destroy". */
void saw_states(struct side *side, const char *states);

/* The two roles */

void meet(struct side *side);
/* Gives `length` bytes, at most 1024, and takes as many. */
void trade(struct side *side, const void *mine, void *theirs, size_t length);

/* Memory */

struct buffer new_buffer(struct side *side, unsigned long size, const VIP_MEM_ATTRIBUTES *attributes);
/* Memory that is not registered, freed after the test. `alignment` is a power of two, or 1. */
void *new_memory(struct side *side, unsigned long size, unsigned long alignment);
/* A descriptor of side->descriptors, cleared. */
VIP_DESCRIPTOR *descriptor(struct side *side, unsigned int index);
void fill_pattern(char *bytes, unsigned long length, unsigned int seed);
int has_pattern(const char *bytes, unsigned long length, unsigned int seed);

/* A send or receive descriptor of one segment. */
VIP_DESCRIPTOR *message(struct side *side, unsigned int index, const struct buffer *buffer, unsigned long offset,
			unsigned long length);
/* An RDMA descriptor of one data segment. */
VIP_DESCRIPTOR *rdma(struct side *side, unsigned int index, VIP_UINT16 operation, const struct buffer *buffer,
		     unsigned long offset, unsigned long length, VIP_UINT64 remote, VIP_MEM_HANDLE handle);
void post(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *descriptor);
/* Waits for the oldest descriptor of a queue, which must be `expected`, and returns its status. */
VIP_UINT32 finish(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *expected);
/* The same; it must have succeeded. */
void succeed(struct side *side, VIP_VI_HANDLE vi, enum queue queue, VIP_DESCRIPTOR *expected);
/* A queue must be empty. */
void is_empty(struct side *side, VIP_VI_HANDLE vi, enum queue queue);

/* VIs */

VIP_VI_ATTRIBUTES vi_attributes(const struct side *side);
VIP_VI_HANDLE new_vi(struct side *side);
VIP_VI_HANDLE new_vi_with(struct side *side, const VIP_VI_ATTRIBUTES *attributes, VIP_CQ_HANDLE send_cq,
			  VIP_CQ_HANDLE receive_cq);
VIP_VI_STATE state_of(struct side *side, VIP_VI_HANDLE vi);
/* Waits until the VI is in this state. */
void becomes(struct side *side, VIP_VI_HANDLE vi, VIP_VI_STATE state);

/* Connections */

/* An address at the other role's NIC, or at this one's, with a discriminator that only this run uses. */
union address peer_address(const struct side *side, const char *discriminator);
union address own_address(const struct side *side, const char *discriminator);
/* Connects a VI of each role: the first asks, the second accepts. Both have posted what they post before. */
void connect_vi(struct side *side, VIP_VI_HANDLE vi);
void connect_as(struct side *side, VIP_VI_HANDLE vi, const char *discriminator);
/* Connects two VIs of one role. */
void connect_own(struct side *side, VIP_VI_HANDLE asking, VIP_VI_HANDLE accepting);
/* Waits for a request and gives it. */
VIP_CONN_HANDLE await_request(struct side *side, const char *discriminator, VIP_VI_ATTRIBUTES *attributes);

/* Errors */

/* Waits for an error of this code and gives it. Errors that no test waits for fail it. */
VIP_ERROR_DESCRIPTOR await_error(struct side *side, VIP_ERROR_CODE code);
/* Errors of this code may come, or not. */
void tolerate(struct side *side, VIP_ERROR_CODE code);
void error_handler(VIP_PVOID side, VIP_ERROR_DESCRIPTOR *error);

/* Threads and time */

/* `argument` is the thread's side->argument. A role has a few threads at most. */
void in_thread(struct side *side, void (*body)(struct side *side), void *argument);
/* Waits for the threads; fails if one has failed. */
void join(struct side *side);
/*
 * Closes the NIC while a thread waits: `wait` gets what `prepare` has made of the NIC. That a thread waits cannot be seen, so the
 * NIC is opened and closed again, a little later each time, until all has been seen that the test covers.
 */
void close_under(struct side *side, void *(*prepare)(struct side *side), void (*wait)(struct side *side));
unsigned long now_ms(void);

extern const struct group nic_group, memory_group, vi_group, connection_group, transfer_group, queue_group, cq_group,
	error_group, rdma_group, attribute_group, peer_group, management_group, notify_group, name_group, vendor_group, scale_group,
	drop_group, corrupt_group, break_group, answer_group, absent_group, failure_group;

#define GROUP(group_name, group_needs, table) \
	{ (group_name), (group_needs), (table), sizeof(table) / sizeof((table)[0]) }

#endif
