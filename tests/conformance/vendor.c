/* Functions of one vendor's library, which programs look for. WITHOUT_VENDOR is for libraries that do not have them. */
#ifndef WITHOUT_VENDOR
#include <string.h>

#include "suite.h"

static void user_data(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	int data;

	CHECK(side, VipGetUserData(a) == NULL);
	VipSetUserData(a, &data);
	VipSetUserData(b, side);
	CHECK(side, VipGetUserData(a) == &data && VipGetUserData(b) == side);
	connect_own(side, a, b);
	CHECK(side, VipGetUserData(a) == &data && VipGetUserData(b) == side);
	VipSetUserData(a, NULL);
	CHECK(side, VipGetUserData(a) == NULL);
	/* Handles of garbage change nothing. */
	VipSetUserData(NULL, &data);
	VipSetUserData(&b, &data);
	VipSetUserData(side->nic, &data);
	CHECK(side, VipGetUserData(NULL) == NULL && VipGetUserData(&b) == NULL && VipGetUserData(b) == side);
	OK(side, VipDisconnect(a));
	await_error(side, VIP_ERROR_CONN_LOST);
	CHECK(side, VipGetUserData(b) == side);
	OK(side, VipDestroyVi(a));
	CHECK(side, VipGetUserData(a) == NULL);
}

static void tags(struct side *side)
{
	VIP_EVENT_HANDLE event = NULL;
	VIP_CQ_HANDLE cq;
	VIP_RETURN code;

	OK(side, VipCreateCQ(side->nic, 4, &cq));
	IS(side, VipAddTagCQ(NULL, &event, 1, 1), VIP_INVALID_PARAMETER);
	IS(side, VipAddTagCQ(side, &event, 1, 1), VIP_INVALID_PARAMETER);
	IS(side, VipAddTagCQ(cq, NULL, 1, 1), VIP_INVALID_PARAMETER);
	IS(side, VipRemoveTagCQ(NULL, event, 1), VIP_INVALID_PARAMETER);
	IS(side, VipRemoveTagCQ(side, event, 1), VIP_INVALID_PARAMETER);
	code = SEEN(side, VipAddTagCQ(cq, &event, 1, 1));
	if (code == VIP_SUCCESS)
		skip(side, "this provider has tags");
	IS(side, VipAddTagCQ(cq, &event, 1, 1), VIP_ERROR_NOT_SUPPORTED);
	IS(side, VipRemoveTagCQ(cq, event, 1), VIP_ERROR_NOT_SUPPORTED);
	CHECK(side, event == NULL);
}

static void deferred(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_BOOLEAN deferred = 7;

	OK(side, VipPostDeferredSends(vi, VIP_FALSE, &deferred));
	CHECK(side, deferred == VIP_FALSE);
	IS(side, VipPostDeferredSends(NULL, VIP_FALSE, &deferred), VIP_INVALID_PARAMETER);
	IS(side, VipPostDeferredSends(&vi, VIP_TRUE, &deferred), VIP_INVALID_PARAMETER);
	IS(side, VipPostDeferredSends(vi, VIP_FALSE, NULL), VIP_INVALID_PARAMETER);
}

static const struct test tests[] = {
	{ "a_vi_keeps_the_programs_data", "HG", "VipDisconnect:VIP_SUCCESS", EACH, user_data, NULL },
	{ "tags_are_not_supported", "HG D",
	  "VipAddTagCQ:VIP_INVALID_PARAMETER VipAddTagCQ:VIP_ERROR_NOT_SUPPORTED VipRemoveTagCQ:VIP_INVALID_PARAMETER "
	  "VipRemoveTagCQ:VIP_ERROR_NOT_SUPPORTED",
	  ONCE, tags, NULL },
	{ "no_send_is_deferred", "HG D", "VipPostDeferredSends:VIP_SUCCESS VipPostDeferredSends:VIP_INVALID_PARAMETER",
	  EACH, deferred, NULL },
};

const struct group vendor_group = GROUP("vendor", NULL, tests);
#else
#include "suite.h"

const struct group vendor_group = { "vendor", NULL, NULL, 0 };
#endif
