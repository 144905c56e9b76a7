/* A test that runs, as the runner knows it; tests see struct side. */
#ifndef RUN_H
#define RUN_H

#include <pthread.h>
#include <setjmp.h>

#include "channel.h"
#include "cover.h"
#include "suite.h"

#define MAX_ERRORS 256
#define MAX_MEMORY 128
#define MAX_THREADS 16
#define MAX_VIS 1024
#define REASON 512

enum outcome { PASSED, SKIPPED, FAILED };

struct run {
	jmp_buf end;
	enum outcome outcome;
	char reason[REASON];
	/* The other role has ended, and how. */
	int peer_ended;
	enum outcome peer_outcome;
	char peer_reason[REASON];
	/* What both have seen of what the test covers. */
	words seen, peer_seen;
	/* VIs, and the state that each was seen in last. */
	struct {
		VIP_VI_HANDLE vi;
		VIP_VI_STATE state;
	} vis[MAX_VIS];
	unsigned int vi_count;

	pthread_mutex_t lock;
	pthread_cond_t error_came;
	/* That have come, and no test has waited for. */
	VIP_ERROR_DESCRIPTOR errors[MAX_ERRORS];
	unsigned int error_count;
	unsigned long tolerated;

	void *memory[MAX_MEMORY];
	unsigned int memory_count;

	/* Threads of the role. */
	pthread_t threads[MAX_THREADS];
	struct side *thread_sides[MAX_THREADS];
	unsigned int thread_count;
	/* The first of them that did not pass. */
	struct run *thread_failure;
	/* A thread's own run: what the thread does. */
	void (*thread_body)(struct side *side);
};

/* A VI is in this state now; what it was in before has been seen, too. */
void saw_state(struct side *side, VIP_VI_HANDLE vi, VIP_VI_STATE state);
void forget_vi(struct run *run, VIP_VI_HANDLE vi);

/* Runs a role to its end, and says how it ended. The other role has ended, too. */
void run_role(struct side *side, struct run *run);

#endif
