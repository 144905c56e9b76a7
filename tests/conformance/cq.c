/* Completion queues. */
#include <string.h>

#include "suite.h"

static VIP_CQ_HANDLE new_cq(struct side *side, unsigned long entries)
{
	VIP_CQ_HANDLE cq = NULL;

	OK(side, VipCreateCQ(side->nic, entries, &cq));
	CHECK(side, cq != NULL);
	return cq;
}

static void lifecycle(struct side *side)
{
	VIP_CQ_HANDLE cq = new_cq(side, 1);
	VIP_VI_HANDLE vi = cq;
	VIP_BOOLEAN receive;
	unsigned long began;

	IS(side, VipCQDone(cq, &vi, &receive), VIP_NOT_DONE);
	CHECK(side, vi == NULL);
	began = now_ms();
	IS(side, VipCQWait(cq, SHORT, &vi, &receive), VIP_TIMEOUT);
	CHECK(side, now_ms() - began >= SHORT - 1);
	OK(side, VipDestroyCQ(cq));
	IS(side, VipDestroyCQ(cq), VIP_INVALID_PARAMETER);
	IS(side, VipCQDone(cq, &vi, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipCQWait(cq, 1, &vi, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipResizeCQ(cq, 10), VIP_INVALID_PARAMETER);
}

static void bad_calls(struct side *side)
{
	VIP_CQ_HANDLE cq = new_cq(side, 16);
	VIP_BOOLEAN receive;
	VIP_VI_HANDLE vi;

	IS(side, VipCreateCQ(NULL, 16, &cq), VIP_INVALID_PARAMETER);
	IS(side, VipCreateCQ(side->nic, 16, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyCQ(NULL), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyCQ(side->nic), VIP_INVALID_PARAMETER);
	IS(side, VipCQDone(NULL, &vi, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipCQDone(cq, NULL, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipCQDone(cq, &vi, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipCQWait(NULL, 1, &vi, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipCQWait(cq, 1, NULL, &receive), VIP_INVALID_PARAMETER);
	IS(side, VipResizeCQ(NULL, 16), VIP_INVALID_PARAMETER);
	IS(side, VipResizeCQ(cq, 0), VIP_INVALID_PARAMETER);
}

static void exhaust(struct side *side)
{
	unsigned long i, count = side->attributes.MaxCQ;
	VIP_CQ_HANDLE *cqs, cq;

	if (count > 4096)
		skip(side, "the NIC has more CQs than are worth a test");
	cqs = new_memory(side, count * sizeof(cq), 16);
	for (i = 0; i < count; i++)
		cqs[i] = new_cq(side, 1);
	IS(side, VipCreateCQ(side->nic, 1, &cq), VIP_ERROR_RESOURCE);
	while (i > 0)
		OK(side, VipDestroyCQ(cqs[--i]));
}

static void in_use(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 16);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, NULL);

	IS(side, VipDestroyCQ(cq), VIP_ERROR_RESOURCE);
	OK(side, VipDestroyVi(vi));
	OK(side, VipDestroyCQ(cq));
}

/* The entry names the queue; the descriptor is done when the entry is there. */
static void completions_first(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 1);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, NULL), found;
	VIP_DESCRIPTOR *sends[20], *done;
	VIP_BOOLEAN receive;
	unsigned int i;

	connect_vi(side, vi);
	meet(side);
	/* More than the CQ was made for. */
	for (i = 0; i < 20; i++) {
		sends[i] = descriptor(side, i + 1);
		post(side, vi, SENDS, sends[i]);
	}
	for (i = 0; i < 20; i++) {
		OK(side, VipCQWait(cq, LIMIT, &found, &receive));
		CHECK(side, found == vi && receive == VIP_FALSE);
		OK(side, VipSendDone(vi, &done));
		CHECK(side, done == sends[i]);
	}
	IS(side, VipCQDone(cq, &found, &receive), VIP_NOT_DONE);
	IS(side, VipSendWait(vi, 1, &done), VIP_INVALID_PARAMETER);
	CHECK(side, done == NULL);
	meet(side);
}

static void completions_second(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 64);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, cq), found;
	VIP_DESCRIPTOR *receives[20], *done;
	VIP_BOOLEAN receive;
	VIP_RETURN code;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		receives[i] = descriptor(side, i + 1);
		post(side, vi, RECEIVES, receives[i]);
	}
	connect_vi(side, vi);
	meet(side);
	for (i = 0; i < 20; i++) {
		while ((code = SEEN(side, VipCQDone(cq, &found, &receive))) == VIP_NOT_DONE)
			;
		IS(side, code, VIP_SUCCESS);
		CHECK(side, found == vi && receive == VIP_TRUE);
		OK(side, VipRecvDone(vi, &done));
		CHECK(side, done == receives[i]);
	}
	IS(side, VipRecvWait(vi, 1, &done), VIP_INVALID_PARAMETER);
	meet(side);
}

static void resizing(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 4);
	VIP_VI_HANDLE a = new_vi_with(side, &attributes, NULL, NULL), found;
	VIP_VI_HANDLE b = new_vi_with(side, &attributes, NULL, cq);
	VIP_DESCRIPTOR *it, *done;
	VIP_BOOLEAN receive;
	unsigned int i;
	VIP_RETURN code;

	connect_own(side, a, b);
	for (i = 1; i <= 8; i++) {
		it = descriptor(side, i);
		it->CS.ImmediateData = 0;
		post(side, b, RECEIVES, it);
	}
	for (i = 1; i <= 8; i++) {
		it = descriptor(side, 20 + i);
		post(side, a, SENDS, it);
		succeed(side, a, SENDS, it);
	}
	/* Live, with entries, larger and larger. */
	for (i = 0; i < 8; i++) {
		OK(side, VipResizeCQ(cq, 36 + 32 * i));
		OK(side, VipCQWait(cq, LIMIT, &found, &receive));
		CHECK(side, found == b && receive == VIP_TRUE);
		OK(side, VipRecvDone(b, &done));
	}
	IS(side, VipCQDone(cq, &found, &receive), VIP_NOT_DONE);
	code = SEEN(side, VipResizeCQ(cq, side->attributes.MaxCQEntries + 1));
	if (code != VIP_INVALID_PARAMETER && code != VIP_ERROR_RESOURCE)
		FAIL(side, "%s", name_of(code));
	OK(side, VipResizeCQ(cq, 1));
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* Fewer than are waiting would lose some. */
static void shrinking(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 10);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, NULL), found;
	VIP_BOOLEAN receive;
	unsigned long limit;
	unsigned int i;
	VIP_RETURN code;

	for (i = 1; i <= 5; i++)
		post(side, vi, SENDS, descriptor(side, i)); /* flushed at once */
	OK(side, VipCQWait(cq, LIMIT, &found, &receive));
	/* Until the other four are there, unless the provider makes room for them in any case. */
	limit = now_ms() + LIMIT / 5;
	do
		code = SEEN(side, VipResizeCQ(cq, 2));
	while (code == VIP_SUCCESS && now_ms() < limit);
	if (code != VIP_SUCCESS && code != VIP_ERROR_RESOURCE && code != VIP_INVALID_PARAMETER)
		FAIL(side, "%s", name_of(code));
	for (i = 0; i < 4; i++)
		OK(side, VipCQWait(cq, LIMIT, &found, &receive));
	OK(side, VipDestroyVi(vi));
	OK(side, VipDestroyCQ(cq));
}

/* Entries of a VI that is gone must not keep the CQ. */
static void leftovers(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 10);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, NULL);
	VIP_DESCRIPTOR *done;
	unsigned int i;

	for (i = 1; i <= 5; i++)
		post(side, vi, SENDS, descriptor(side, i));
	for (i = 0; i < 5; i++)
		while (VipSendDone(vi, &done) == VIP_NOT_DONE)
			;
	OK(side, VipDestroyVi(vi));
	OK(side, VipDestroyCQ(cq));
}

#define VIS 8

/* Many work queues, one CQ: every completion is there once, in the order of its queue. */
static void shared(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 1);
	VIP_VI_HANDLE vis[VIS], found;
	unsigned int counts[VIS] = { 0 }, i, j;
	VIP_DESCRIPTOR *done;
	VIP_BOOLEAN receive;
	char name[2] = "a";

	for (i = 0; i < VIS; i++) {
		vis[i] = new_vi_with(side, &attributes, side->role == FIRST ? cq : NULL,
				     side->role == SECOND ? cq : NULL);
		if (side->role == SECOND)
			for (j = 0; j < 5; j++)
				post(side, vis[i], RECEIVES, descriptor(side, 1 + i * 5 + j));
		name[0] = (char)('a' + i);
		connect_as(side, vis[i], name);
	}
	for (i = 0; i < VIS * 5; i++) {
		if (side->role == FIRST) {
			VIP_DESCRIPTOR *it = descriptor(side, 1 + i);

			it->CS.Control = VIP_CONTROL_IMMEDIATE;
			it->CS.ImmediateData = i / VIS;
			post(side, vis[i % VIS], SENDS, it);
		}
	}
	for (i = 0; i < VIS * 5; i++) {
		OK(side, VipCQWait(cq, LIMIT, &found, &receive));
		for (j = 0; j < VIS && vis[j] != found; j++)
			;
		CHECK(side, j < VIS && receive == (side->role == SECOND));
		OK(side, receive ? VipRecvDone(found, &done) : VipSendDone(found, &done));
		if (receive)
			CHECK(side, done->CS.ImmediateData == counts[j]);
		counts[j]++;
	}
	for (i = 0; i < VIS; i++)
		CHECK(side, counts[i] == 5);
	meet(side);
}

static void wait_in_thread(struct side *side)
{
	VIP_BOOLEAN receive;
	VIP_VI_HANDLE vi;

	OK(side, VipCQWait(side->argument, VIP_INFINITE, &vi, &receive));
}

static void waking(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_CQ_HANDLE cq = new_cq(side, 10);
	VIP_VI_HANDLE vi = new_vi_with(side, &attributes, cq, NULL);

	in_thread(side, wait_in_thread, cq);
	post(side, vi, SENDS, descriptor(side, 1));
	join(side);
}

static void wait_closed(struct side *side)
{
	VIP_BOOLEAN receive;
	VIP_VI_HANDLE vi;
	VIP_RETURN code = SEEN(side, VipCQWait(side->argument, VIP_INFINITE, &vi, &receive));

	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_RESOURCE);
}

static void *cq_to_wait_for(struct side *side)
{
	return new_cq(side, 10);
}

static void closing(struct side *side)
{
	close_under(side, cq_to_wait_for, wait_closed);
}

static const struct test tests[] = {
	{ "a_cq_begins_empty_and_ends", "M:m C:mpich-nt",
	  "VipCreateCQ:VIP_SUCCESS VipDestroyCQ:VIP_SUCCESS VipDestroyCQ:VIP_INVALID_PARAMETER VipCQDone:VIP_NOT_DONE "
	  "VipCQWait:VIP_TIMEOUT VipCQDone:VIP_INVALID_PARAMETER VipCQWait:VIP_INVALID_PARAMETER",
	  ONCE, lifecycle, NULL },
	{ "bad_parameters", "D",
	  "VipCreateCQ:VIP_INVALID_PARAMETER VipResizeCQ:VIP_INVALID_PARAMETER VipDestroyCQ:VIP_INVALID_PARAMETER "
	  "VipCQDone:VIP_INVALID_PARAMETER VipCQWait:VIP_INVALID_PARAMETER",
	  ONCE, bad_calls, NULL },
	{ "there_are_as_many_as_the_nic_says", "D", "VipCreateCQ:VIP_ERROR_RESOURCE", ONCE, exhaust, NULL },
	{ "a_cq_of_a_vi_stays", "M:m", "VipDestroyCQ:VIP_ERROR_RESOURCE", ONCE, in_use, NULL },
	{ "an_entry_for_every_completion", "C:iometer C:armci C:mpich-nt",
	  "VipCQWait:VIP_SUCCESS VipCQDone:VIP_SUCCESS VipSendDone:VIP_SUCCESS VipRecvDone:VIP_SUCCESS "
	  "VipSendWait:VIP_INVALID_PARAMETER VipRecvWait:VIP_INVALID_PARAMETER",
	  EACH, completions_first, completions_second },
	{ "a_live_cq_is_resized", "C:mpich-nt", "VipResizeCQ:VIP_SUCCESS VipResizeCQ:VIP_ERROR_RESOURCE", EACH,
	  resizing, NULL },
	{ "a_cq_does_not_shrink_below_its_entries", "M:l", "VipResizeCQ:VIP_ERROR_RESOURCE", ONCE, shrinking, NULL },
	{ "entries_left_over_keep_no_cq", "C:iometer", "VipDestroyCQ:VIP_SUCCESS", ONCE, leftovers, NULL },
	{ "queues_share_a_cq", "M:m", "VipCQWait:VIP_SUCCESS", EACH, shared, shared },
	{ "a_completion_wakes_a_wait", "M:h", "VipCQWait:VIP_SUCCESS", ONCE, waking, NULL },
	{ "closing_ends_waits", "C:mpich-nt D", "VipCQWait:VIP_ERROR_RESOURCE", ONCE, closing, NULL },
};

const struct group cq_group = GROUP("cq", NULL, tests);
