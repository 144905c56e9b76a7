/*
 * Connections between equals. Both roles meet before they ask: a NIC that no program has open answers differently from one where
 * nobody asks yet.
 */
#include <string.h>
#include <time.h>

#include "suite.h"

/* Asks for a connection from `here` at this NIC to `there` at the other role's. */
static VIP_RETURN request(struct side *side, VIP_VI_HANDLE vi, const char *here, const char *there,
			  unsigned long timeout)
{
	union address local = own_address(side, here), remote = peer_address(side, there);

	return SEEN(side, VipConnectPeerRequest(vi, &local.net, &remote.net, timeout));
}

/* The same between two VIs of this NIC. */
static VIP_RETURN request_own(struct side *side, VIP_VI_HANDLE vi, const char *here, const char *there,
			      unsigned long timeout)
{
	union address local = own_address(side, here), remote = own_address(side, there);

	return SEEN(side, VipConnectPeerRequest(vi, &local.net, &remote.net, timeout));
}

/* From either role to the other: the first is "a", the second "b". */
static void request_other(struct side *side, VIP_VI_HANDLE vi, unsigned long timeout)
{
	int first = side->role == FIRST;

	IS(side, request(side, vi, first ? "a" : "b", first ? "b" : "a", timeout), VIP_SUCCESS);
}

/* Polls until there is an outcome. */
static VIP_RETURN poll(struct side *side, VIP_VI_HANDLE vi, VIP_VI_ATTRIBUTES *attributes)
{
	const struct timespec pause = { 0, 200000 };
	unsigned long limit = now_ms() + LIMIT;
	VIP_RETURN code;

	while ((code = SEEN(side, VipConnectPeerDone(vi, attributes))) == VIP_NOT_DONE) {
		if (now_ms() > limit)
			FAIL(side, "the attempt has no outcome");
		nanosleep(&pause, NULL);
	}
	return code;
}

static VIP_RETURN outcome(struct side *side, VIP_VI_HANDLE vi, int by_polling)
{
	VIP_VI_ATTRIBUTES attributes;

	return by_polling ? poll(side, vi, &attributes) : SEEN(side, VipConnectPeerWait(vi, &attributes));
}

static void bad_calls(struct side *side)
{
	union address local = own_address(side, "a"), remote = own_address(side, "b"), bad;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;

	IS(side, VipConnectPeerRequest(NULL, &local.net, &remote.net, LIMIT), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerRequest(&vi, &local.net, &remote.net, LIMIT), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerRequest(vi, NULL, &remote.net, LIMIT), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerRequest(vi, &local.net, NULL, LIMIT), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerRequest(vi, &local.net, &remote.net, 0), VIP_INVALID_PARAMETER);
	bad = remote;
	bad.net.DiscriminatorLen = (VIP_UINT16)(side->attributes.MaxDiscriminatorLen + 1);
	IS(side, VipConnectPeerRequest(vi, &local.net, &bad.net, LIMIT), VIP_INVALID_PARAMETER);
	bad = local;
	bad.net.DiscriminatorLen = (VIP_UINT16)(side->attributes.MaxDiscriminatorLen + 1);
	IS(side, VipConnectPeerRequest(vi, &bad.net, &remote.net, LIMIT), VIP_INVALID_PARAMETER);
	bad = remote;
	bad.net.HostAddressLen = (VIP_UINT16)(side->attributes.NicAddressLen - 1);
	IS(side, VipConnectPeerRequest(vi, &local.net, &bad.net, LIMIT), VIP_INVALID_PARAMETER);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	IS(side, VipConnectPeerDone(NULL, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerDone(&vi, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerWait(NULL, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectPeerWait(side->nic, &attributes), VIP_INVALID_PARAMETER);
	/* No attempt is under way. */
	IS(side, VipConnectPeerDone(vi, &attributes), VIP_INVALID_STATE);
	IS(side, VipConnectPeerWait(vi, &attributes), VIP_INVALID_STATE);
}

/* Both send, as soon as they are connected. */
static void equals(struct side *side)
{
	struct buffer buffer = new_buffer(side, 200, NULL);
	VIP_VI_ATTRIBUTES own = vi_attributes(side), theirs;
	VIP_DESCRIPTOR *send = message(side, 1, &buffer, 0, 100), *receive = message(side, 2, &buffer, 100, 100);
	VIP_VI_HANDLE vi;

	own.EnableRdmaWrite = side->role == FIRST;
	vi = new_vi_with(side, &own, NULL, NULL);
	fill_pattern(buffer.bytes, 100, side->role);
	post(side, vi, RECEIVES, receive);
	meet(side);
	request_other(side, vi, LIMIT);
	IS(side, VipConnectPeerWait(vi, &theirs), VIP_SUCCESS);
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	CHECK(side, theirs.ReliabilityLevel == side->level && theirs.MaxTransferSize == own.MaxTransferSize);
	CHECK(side, !theirs.EnableRdmaWrite == (side->role == FIRST) && theirs.Ptag == NULL);
	/* An outcome is told once. */
	IS(side, VipConnectPeerWait(vi, &theirs), VIP_INVALID_STATE);
	IS(side, VipConnectPeerDone(vi, &theirs), VIP_INVALID_STATE);
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	succeed(side, vi, RECEIVES, receive);
	CHECK(side, has_pattern(buffer.bytes + 100, 100, side->role == FIRST ? SECOND : FIRST));
	meet(side);
	if (side->role == FIRST)
		OK(side, VipDisconnect(vi));
	else
		await_error(side, VIP_ERROR_CONN_LOST);
	meet(side);
}

/* The first asks long before the second, and looks now and then. */
static void polled(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES theirs;
	int i;

	meet(side);
	if (side->role == FIRST) {
		request_other(side, vi, VIP_INFINITE);
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECT_PENDING);
		for (i = 0; i < 100; i++)
			IS(side, VipConnectPeerDone(vi, &theirs), VIP_NOT_DONE);
		/* It is busy. */
		IS(side, request(side, vi, "c", "d", LIMIT), VIP_INVALID_STATE);
		IS(side, VipDestroyVi(vi), VIP_ERROR_RESOURCE);
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECT_PENDING);
	}
	meet(side);
	if (side->role == SECOND)
		request_other(side, vi, VIP_INFINITE);
	IS(side, poll(side, vi, &theirs), VIP_SUCCESS);
	CHECK(side, theirs.ReliabilityLevel == side->level);
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	IS(side, request(side, vi, "c", "d", LIMIT), VIP_INVALID_STATE);
	meet(side);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

#define MANY 20

/* Many at once, with the same discriminator at both ends, in opposite orders. */
static void many(struct side *side)
{
	VIP_VI_HANDLE vis[MANY];
	VIP_VI_ATTRIBUTES theirs;
	char name[4];
	int i;

	for (i = 0; i < MANY; i++)
		vis[i] = new_vi(side);
	meet(side);
	for (i = 0; i < MANY; i++) {
		int which = side->role == FIRST ? i : MANY - 1 - i;

		name[0] = 'm';
		name[1] = (char)('a' + which);
		name[2] = 0;
		IS(side, request(side, vis[which], name, name, VIP_INFINITE), VIP_SUCCESS);
	}
	for (i = 0; i < MANY; i++)
		IS(side, VipConnectPeerWait(vis[i], &theirs), VIP_SUCCESS);
	meet(side);
	/* Each with its own partner. */
	for (i = 0; i < MANY; i++) {
		VIP_DESCRIPTOR *it = descriptor(side, 1);

		if (side->role == FIRST) {
			meet(side);
			it->CS.Control = VIP_CONTROL_IMMEDIATE;
			it->CS.ImmediateData = (VIP_UINT32)i;
			post(side, vis[i], SENDS, it);
			succeed(side, vis[i], SENDS, it);
		} else {
			post(side, vis[i], RECEIVES, it);
			meet(side);
			succeed(side, vis[i], RECEIVES, it);
			CHECK(side, it->CS.ImmediateData == (VIP_UINT32)i);
		}
	}
	meet(side);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* No partner comes: learned by waiting, and by polling. */
static void in_vain(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *done;
	VIP_VI_ATTRIBUTES theirs;
	unsigned long began;
	int polling;

	post(side, vi, RECEIVES, descriptor(side, 1));
	for (polling = 0; polling < 2; polling++) {
		began = now_ms();
		IS(side, request_own(side, vi, "a", "b", SHORT), VIP_SUCCESS);
		CHECK(side, state_of(side, vi) == VIP_STATE_CONNECT_PENDING);
		IS(side, outcome(side, vi, polling), VIP_TIMEOUT);
		CHECK(side, now_ms() - began >= SHORT - 1);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
		IS(side, VipConnectPeerDone(vi, &theirs), VIP_INVALID_STATE);
		/* The receive is still there. */
		IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
	}
	/* And it connects all the same. */
	connect_own(side, vi, new_vi(side));
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void no_such_nic(struct side *side)
{
	union address local = own_address(side, "a"), remote = own_address(side, "b");
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_RETURN code;
	int polling;

	memset(remote.net.HostAddress, 0x42, side->attributes.NicAddressLen);
	for (polling = 0; polling < 2; polling++) {
		IS(side, VipConnectPeerRequest(vi, &local.net, &remote.net, LIMIT), VIP_SUCCESS);
		code = outcome(side, vi, polling);
		if (code != VIP_NO_MATCH && code != VIP_TIMEOUT)
			IS(side, code, VIP_NOT_REACHABLE);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	}
}

/* Attributes that differ: both ends are told, each in either way. */
static void mismatch(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes, other_level = vi_attributes(side), other_size = other_level;
	int round, by_polling;
	VIP_VI_HANDLE vi;

	other_level.ReliabilityLevel = side->level == VIP_SERVICE_UNRELIABLE ? VIP_SERVICE_RELIABLE_DELIVERY :
									       VIP_SERVICE_UNRELIABLE;
	other_size.MaxTransferSize -= 1;
	for (round = 0; round < 4; round++) {
		by_polling = (round & 1) == (side->role == FIRST);
		attributes = side->role == FIRST ? vi_attributes(side) : round < 2 ? other_level : other_size;
		vi = new_vi_with(side, &attributes, NULL, NULL);
		post(side, vi, RECEIVES, descriptor(side, 1));
		meet(side);
		request_other(side, vi, LIMIT);
		IS(side, outcome(side, vi, by_polling),
		   round < 2 ? VIP_INVALID_RELIABILITY_LEVEL : VIP_INVALID_MTU);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
		OK(side, VipDestroyVi(vi));
		meet(side);
	}
}

static void wait_given_up(struct side *side)
{
	VIP_VI_ATTRIBUTES theirs;

	IS(side, VipConnectPeerWait(side->argument, &theirs), VIP_INVALID_STATE);
}

/* Who disconnects gives the attempt up, whoever waits for it, and is nobody's partner. */
static void given_up(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_DESCRIPTOR *receive = descriptor(side, 1);
	VIP_VI_ATTRIBUTES theirs;

	post(side, a, RECEIVES, receive);
	IS(side, request_own(side, a, "a", "b", VIP_INFINITE), VIP_SUCCESS);
	CHECK(side, state_of(side, a) == VIP_STATE_CONNECT_PENDING);
	in_thread(side, wait_given_up, a);
	OK(side, VipDisconnect(a));
	CHECK(side, state_of(side, a) == VIP_STATE_IDLE);
	join(side);
	IS(side, VipConnectPeerDone(a, &theirs), VIP_INVALID_STATE);
	CHECK(side, finish(side, a, RECEIVES, receive) & VIP_STATUS_DESC_FLUSHED_ERROR);
	is_empty(side, a, RECEIVES);
	IS(side, request_own(side, b, "b", "a", SHORT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(b, &theirs), VIP_TIMEOUT);
	/* Again, with an end. */
	IS(side, request_own(side, a, "a", "b", LIMIT), VIP_SUCCESS);
	IS(side, request_own(side, b, "b", "a", LIMIT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(a, &theirs), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(b, &theirs), VIP_SUCCESS);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* Two VIs of one NIC; a VI is not its own peer. */
static void with_itself(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_VI_ATTRIBUTES theirs;

	IS(side, request_own(side, a, "same", "same", SHORT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(a, &theirs), VIP_TIMEOUT);
	IS(side, request_own(side, a, "same", "same", LIMIT), VIP_SUCCESS);
	IS(side, request_own(side, b, "same", "same", LIMIT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(b, &theirs), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(a, &theirs), VIP_SUCCESS);
	CHECK(side, state_of(side, a) == VIP_STATE_CONNECTED && state_of(side, b) == VIP_STATE_CONNECTED);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

/* Servers and clients on the one hand, equals on the other, do not find each other, nor do halves of an address. */
static void strangers(struct side *side)
{
	union address local = own_address(side, "x"), remote = own_address(side, "a"), from;
	VIP_VI_HANDLE peer = new_vi(side), client = new_vi(side), other = new_vi(side);
	VIP_VI_ATTRIBUTES theirs;
	VIP_CONN_HANDLE connection;

	IS(side, request_own(side, peer, "a", "x", VIP_INFINITE), VIP_SUCCESS);
	IS(side, VipConnectRequest(client, &local.net, &remote.net, LIMIT, &theirs), VIP_NO_MATCH);
	IS(side, VipConnectWait(side->nic, &local.net, SHORT, &from.net, &theirs, &connection), VIP_TIMEOUT);
	IS(side, request_own(side, other, "y", "a", SHORT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(other, &theirs), VIP_TIMEOUT);
	IS(side, VipConnectPeerDone(peer, &theirs), VIP_NOT_DONE);
	IS(side, request_own(side, other, "x", "a", LIMIT), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(peer, &theirs), VIP_SUCCESS);
	IS(side, VipConnectPeerWait(other, &theirs), VIP_SUCCESS);
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void *vi_that_asks(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);

	IS(side, request_own(side, vi, "a", "b", VIP_INFINITE), VIP_SUCCESS);
	return vi;
}

static void wait_closed(struct side *side)
{
	VIP_VI_ATTRIBUTES theirs;
	VIP_RETURN code = SEEN(side, VipConnectPeerWait(side->argument, &theirs));

	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_RESOURCE);
}

static void closing(struct side *side)
{
	close_under(side, vi_that_asks, wait_closed);
}

/* The process that asked goes before its partner comes. */
static void left_alone(struct side *side)
{
	VIP_NIC_HANDLE nic = side->nic;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES theirs;

	meet(side);
	if (side->role == FIRST) {
		request_other(side, vi, VIP_INFINITE);
		side->nic = NULL;
		OK(side, VipCloseNic(nic));
		OK(side, VipOpenNic(side->nic_name, &side->nic));
		meet(side);
	} else {
		meet(side);
		request_other(side, vi, SHORT);
		IS(side, VipConnectPeerWait(vi, &theirs), VIP_TIMEOUT);
	}
	meet(side);
}

static const struct test tests[] = {
	{ "bad_parameters", "M:m",
	  "VipConnectPeerRequest:VIP_INVALID_PARAMETER VipConnectPeerDone:VIP_INVALID_PARAMETER "
	  "VipConnectPeerWait:VIP_INVALID_PARAMETER VipConnectPeerDone:VIP_INVALID_STATE "
	  "VipConnectPeerWait:VIP_INVALID_STATE",
	  ONCE, bad_calls, NULL },
	{ "equals_connect_and_exchange", "M:m C:armci",
	  "VipConnectPeerRequest:VIP_SUCCESS VipConnectPeerWait:VIP_SUCCESS VipConnectPeerWait:VIP_INVALID_STATE "
	  "VipConnectPeerDone:VIP_INVALID_STATE",
	  EACH, equals, equals },
	{ "the_first_waits_for_the_second", "M:m",
	  "VipConnectPeerDone:VIP_NOT_DONE VipConnectPeerDone:VIP_SUCCESS VipConnectPeerRequest:VIP_INVALID_STATE "
	  "VipDestroyVi:VIP_ERROR_RESOURCE state:Idle-ConnectPending state:ConnectPending-Connected",
	  EACH, polled, polled },
	{ "many_ask_at_once", "C:armci", "VipConnectPeerWait:VIP_SUCCESS", EACH, many, many },
	{ "a_request_ends_in_time", "M:m",
	  "VipConnectPeerWait:VIP_TIMEOUT VipConnectPeerDone:VIP_TIMEOUT state:ConnectPending-Idle", EACH, in_vain, NULL },
	{ "no_such_nic", "HG D", "VipConnectPeerWait:VIP_NOT_REACHABLE VipConnectPeerDone:VIP_NOT_REACHABLE", ONCE,
	  no_such_nic, NULL },
	{ "attributes_that_differ_are_told_to_both", "VG:vipl_packets M:m",
	  "VipConnectPeerWait:VIP_INVALID_RELIABILITY_LEVEL VipConnectPeerDone:VIP_INVALID_RELIABILITY_LEVEL "
	  "VipConnectPeerWait:VIP_INVALID_MTU VipConnectPeerDone:VIP_INVALID_MTU",
	  EACH, mismatch, mismatch },
	{ "an_attempt_is_given_up", "D",
	  "VipDisconnect:VIP_SUCCESS VipConnectPeerWait:VIP_INVALID_STATE VipConnectPeerDone:VIP_INVALID_STATE "
	  "state:ConnectPending-Idle",
	  EACH, given_up, NULL },
	{ "a_nic_connects_to_itself", "C:mplite D", "VipConnectPeerWait:VIP_SUCCESS VipConnectPeerWait:VIP_TIMEOUT", EACH,
	  with_itself, NULL },
	{ "only_equals_find_each_other", "M:m", "VipConnectRequest:VIP_NO_MATCH VipConnectPeerDone:VIP_NOT_DONE", ONCE,
	  strangers, NULL },
	{ "closing_ends_waits", "D", "VipConnectPeerWait:VIP_ERROR_RESOURCE", ONCE, closing, NULL },
	{ "who_has_gone_is_nobodys_partner", "D", "VipConnectPeerWait:VIP_TIMEOUT", ONCE, left_alone, left_alone },
};

const struct group peer_group = GROUP("peer", NULL, tests);

/* The second's NIC has no driver while nobody has it open. */
static void nobody_there(struct side *side)
{
	VIP_NIC_HANDLE nic = side->nic;
	VIP_VI_ATTRIBUTES theirs;
	VIP_VI_HANDLE vi = new_vi(side);
	int polling;

	if (side->role == SECOND) {
		side->nic = NULL;
		OK(side, VipCloseNic(nic));
		meet(side);
		meet(side);
		/* And once more while a request waits here. */
		for (polling = 0; polling < 2; polling++) {
			OK(side, VipOpenNic(side->nic_name, &side->nic));
			meet(side);
			meet(side);
			nic = side->nic;
			side->nic = NULL;
			OK(side, VipCloseNic(nic));
			meet(side);
		}
		return;
	}
	meet(side);
	for (polling = 0; polling < 2; polling++) {
		request_other(side, vi, LIMIT);
		IS(side, outcome(side, vi, polling), VIP_NO_MATCH);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	}
	meet(side);
	for (polling = 0; polling < 2; polling++) {
		meet(side);
		request_other(side, vi, LIMIT);
		IS(side, VipConnectPeerDone(vi, &theirs), VIP_NOT_DONE);
		meet(side);
		IS(side, outcome(side, vi, polling), VIP_NO_MATCH);
		meet(side);
	}
}

static const struct test absent_tests[] = {
	{ "nobody_has_the_nic", "D", "VipConnectPeerWait:VIP_NO_MATCH VipConnectPeerDone:VIP_NO_MATCH", EACH, nobody_there,
	  nobody_there },
};

const struct group absent_group = GROUP("peer-absent", "absent", absent_tests);
