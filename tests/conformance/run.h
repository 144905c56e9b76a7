/* A test that runs, as the runner knows it; tests see struct side. */
#ifndef RUN_H
#define RUN_H

#include <pthread.h>
#include <setjmp.h>

#include "channel.h"
#include "suite.h"

#define MAX_ERRORS 256
#define MAX_MEMORY 64
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

	pthread_mutex_t lock;
	pthread_cond_t error_came;
	/* That have come, and no test has waited for. */
	VIP_ERROR_DESCRIPTOR errors[MAX_ERRORS];
	unsigned int error_count;
	unsigned long tolerated;

	void *memory[MAX_MEMORY];
	unsigned int memory_count;

	/* A thread of the role. */
	pthread_t thread;
	struct side *thread_side;
	void (*thread_body)(struct side *side);
};

/* Runs a role to its end, and says how it ended. The other role has ended, too. */
void run_role(struct side *side, struct run *run);

#endif
