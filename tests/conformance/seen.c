/* What a test has seen of what it covers. */
#include <stdio.h>
#include <string.h>

#include "run.h"

VIP_RETURN saw_return(struct side *side, const char *call, VIP_RETURN code)
{
	char function[64];
	size_t length = strcspn(call, "(");

	if (length < sizeof(function)) {
		memcpy(function, call, length);
		function[length] = 0;
		side->run->seen |= word_of(side->test->covers, function, name_of(code));
	}
	return code;
}

VIP_UINT32 saw_status(struct side *side, VIP_UINT32 status)
{
	static const char *const operations[] = { "OP_SEND",		 "OP_RECEIVE",	"OP_RDMA_WRITE",
						  "OP_REMOTE_RDMA_WRITE", "OP_RDMA_READ" };
	static const struct {
		VIP_UINT32 bit;
		const char *name;
	} bits[] = {
		{ VIP_STATUS_DONE, "DONE" },
		{ VIP_STATUS_FORMAT_ERROR, "FORMAT_ERROR" },
		{ VIP_STATUS_PROTECTION_ERROR, "PROTECTION_ERROR" },
		{ VIP_STATUS_LENGTH_ERROR, "LENGTH_ERROR" },
		{ VIP_STATUS_PARTIAL_ERROR, "PARTIAL_ERROR" },
		{ VIP_STATUS_DESC_FLUSHED_ERROR, "DESC_FLUSHED_ERROR" },
		{ VIP_STATUS_TRANSPORT_ERROR, "TRANSPORT_ERROR" },
		{ VIP_STATUS_RDMA_PROT_ERROR, "RDMA_PROT_ERROR" },
		{ VIP_STATUS_REMOTE_DESC_ERROR, "REMOTE_DESC_ERROR" },
		{ VIP_STATUS_IMMEDIATE, "IMMEDIATE" },
	};
	VIP_UINT32 operation = (status & VIP_STATUS_OP_MASK) / VIP_STATUS_OP_RECEIVE;
	size_t i;

	for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (status & bits[i].bit)
			side->run->seen |= word_of(side->test->covers, "status", bits[i].name);
	if (operation < sizeof(operations) / sizeof(operations[0]))
		side->run->seen |= word_of(side->test->covers, "status", operations[operation]);
	return status;
}

void saw_error(struct side *side, VIP_ERROR_CODE code)
{
	static const char *const names[] = { "POST_DESC",  "CONN_LOST",	  "RECVQ_EMPTY", "VI_OVERRUN",
					     "RDMAW_PROT", "RDMAW_DATA",  "RDMAW_ABORT", "RDMAR_PROT",
					     "COMP_PROT",  "RDMA_TRANSPORT", "CATASTROPHIC" };

	if ((size_t)code < sizeof(names) / sizeof(names[0]))
		side->run->seen |= word_of(side->test->covers, "error", names[code]);
}

void saw_states(struct side *side, const char *states)
{
	side->run->seen |= word_of(side->test->covers, "state", states);
}

void saw_state(struct side *side, VIP_VI_HANDLE vi, VIP_VI_STATE state)
{
	static const char *const names[] = { "Idle", "Connected", "ConnectPending", "Error" };
	struct run *run = side->run;
	char states[64];
	unsigned int i;

	if ((size_t)state >= sizeof(names) / sizeof(names[0]))
		FAIL(side, "a VI is in state %d, which does not exist", (int)state);
	for (i = 0; i < run->vi_count && run->vis[i].vi != vi; i++)
		;
	if (i == MAX_VIS)
		return;
	if (i == run->vi_count) {
		run->vi_count++;
		run->vis[i].vi = vi;
	} else if (run->vis[i].state != state) {
		snprintf(states, sizeof(states), "%s-%s", names[run->vis[i].state], names[state]);
		saw_states(side, states);
	}
	run->vis[i].state = state;
}

/* A handle that is given out again is another VI's. */
void forget_vi(struct run *run, VIP_VI_HANDLE vi)
{
	unsigned int i;

	for (i = 0; i < run->vi_count; i++)
		if (run->vis[i].vi == vi)
			run->vis[i] = run->vis[--run->vi_count];
}
