/* Connections, client and server. The first role asks. */
#include <string.h>

#include "suite.h"

static VIP_RETURN request(struct side *side, VIP_VI_HANDLE vi, const char *discriminator, unsigned long timeout,
			  VIP_VI_ATTRIBUTES *attributes)
{
	union address local = own_address(side, "me"), remote = peer_address(side, discriminator);
	VIP_RETURN code;

	code = SEEN(side, VipConnectRequest(vi, &local.net, &remote.net, timeout, attributes));
	return code;
}

/* Asks until somebody waits. */
static VIP_RETURN request_until(struct side *side, VIP_VI_HANDLE vi, const char *discriminator, unsigned long timeout,
				VIP_VI_ATTRIBUTES *attributes)
{
	unsigned long limit = now_ms() + LIMIT;
	VIP_RETURN code;

	do
		code = request(side, vi, discriminator, timeout, attributes);
	while (code == VIP_NO_MATCH && now_ms() < limit);
	return code;
}

static void connecting_first(struct side *side)
{
	VIP_VI_ATTRIBUTES own = vi_attributes(side), peer;
	VIP_VI_HANDLE vi;

	own.EnableRdmaWrite = VIP_TRUE;
	vi = new_vi_with(side, &own, NULL, NULL);
	IS(side, request_until(side, vi, "x", LIMIT, &peer), VIP_SUCCESS);
	CHECK(side, peer.ReliabilityLevel == side->level && peer.MaxTransferSize == own.MaxTransferSize &&
			    !peer.EnableRdmaWrite);
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	meet(side);
	OK(side, VipDisconnect(vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
}

static void connecting_second(struct side *side)
{
	union address local = own_address(side, "x"), remote;
	VIP_VI_ATTRIBUTES peer;
	VIP_CONN_HANDLE connection;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_ERROR_DESCRIPTOR error;

	memset(&remote, 0xa5, sizeof(remote));
	OK(side, VipConnectWait(side->nic, &local.net, LIMIT, &remote.net, &peer, &connection));
	CHECK(side, remote.net.HostAddressLen == side->attributes.NicAddressLen);
	CHECK(side, memcmp(remote.net.HostAddress, side->peer_host, side->attributes.NicAddressLen) == 0);
	CHECK(side, remote.net.DiscriminatorLen > 0);
	CHECK(side, peer.ReliabilityLevel == side->level && peer.EnableRdmaWrite);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	OK(side, VipConnectAccept(connection, vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	IS(side, VipConnectAccept(connection, vi), VIP_INVALID_PARAMETER);
	IS(side, VipConnectReject(connection), VIP_INVALID_PARAMETER);
	meet(side);
	becomes(side, vi, VIP_STATE_ERROR);
	error = await_error(side, VIP_ERROR_CONN_LOST);
	CHECK(side, error.ViHandle == vi && error.ResourceCode == VIP_RESOURCE_VI);
	OK(side, VipDisconnect(vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	OK(side, VipDisconnect(vi));
}

static void nobody(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100), *done;
	int i;

	post(side, vi, RECEIVES, receive);
	for (i = 0; i < 20; i++) {
		IS(side, request(side, vi, "nobody", VIP_INFINITE, &attributes), VIP_NO_MATCH);
		CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
		IS(side, VipRecvDone(vi, &done), VIP_NOT_DONE);
		CHECK(side, done == NULL);
	}
}

static void nobody_second(struct side *side)
{
	(void)side;
}

static void no_such_nic(struct side *side)
{
	union address local = own_address(side, "me"), remote = own_address(side, "x");
	VIP_VI_ATTRIBUTES attributes;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_RETURN code;

	memset(remote.net.HostAddress, 0x42, side->attributes.NicAddressLen);
	code = SEEN(side, VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes));
	if (code != VIP_NOT_REACHABLE && code != VIP_NO_MATCH && code != VIP_TIMEOUT)
		FAIL(side, "%s", name_of(code));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
}

static void bad_requests(struct side *side)
{
	union address local = own_address(side, "me"), remote = own_address(side, "x"), bad;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	IS(side, VipConnectRequest(vi, &local.net, &remote.net, 0, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectRequest(NULL, &local.net, &remote.net, LIMIT, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectRequest(vi, NULL, &remote.net, LIMIT, &attributes), VIP_INVALID_PARAMETER);
	IS(side, VipConnectRequest(vi, &local.net, NULL, LIMIT, &attributes), VIP_INVALID_PARAMETER);
	bad = remote;
	bad.net.DiscriminatorLen = (VIP_UINT16)(side->attributes.MaxDiscriminatorLen + 1);
	IS(side, VipConnectRequest(vi, &local.net, &bad.net, LIMIT, &attributes), VIP_INVALID_PARAMETER);
	bad = remote;
	bad.net.HostAddressLen = 5;
	IS(side, VipConnectRequest(vi, &local.net, &bad.net, LIMIT, &attributes), VIP_INVALID_PARAMETER);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	IS(side, VipConnectWait(NULL, &local.net, 1, &bad.net, &attributes, &connection), VIP_INVALID_PARAMETER);
	IS(side, VipConnectWait(side->nic, NULL, 1, &bad.net, &attributes, &connection), VIP_INVALID_PARAMETER);
	IS(side, VipConnectWait(side->nic, &local.net, 1, &bad.net, &attributes, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipConnectAccept(NULL, vi), VIP_INVALID_PARAMETER);
	IS(side, VipConnectAccept(&vi, vi), VIP_INVALID_PARAMETER);
	IS(side, VipConnectReject(NULL), VIP_INVALID_PARAMETER);
	IS(side, VipConnectReject(vi), VIP_INVALID_PARAMETER);
}

static void waiting_in_vain(struct side *side)
{
	union address local = own_address(side, "x"), remote;
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection = side;
	unsigned long began = now_ms();

	IS(side, VipConnectWait(side->nic, &local.net, SHORT, &remote.net, &attributes, &connection), VIP_TIMEOUT);
	CHECK(side, now_ms() - began >= SHORT - 1);
	IS(side, VipConnectWait(side->nic, &local.net, 0, &remote.net, &attributes, &connection), VIP_TIMEOUT);
}

static void rejected_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100);

	post(side, vi, RECEIVES, receive);
	IS(side, request_until(side, vi, "x", LIMIT, &attributes), VIP_REJECT);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	/* The VI connects all the same, and its receive is still there. */
	meet(side);
	connect_vi(side, vi);
	succeed(side, vi, RECEIVES, receive);
	meet(side);
}

static void rejected_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 100, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection = await_request(side, "x", &attributes);
	VIP_DESCRIPTOR *send;

	OK(side, VipConnectReject(connection));
	IS(side, VipConnectReject(connection), VIP_INVALID_PARAMETER);
	IS(side, VipConnectAccept(connection, vi), VIP_INVALID_PARAMETER);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	meet(side);
	connect_vi(side, vi);
	send = message(side, 1, &buffer, 0, 100);
	post(side, vi, SENDS, send);
	succeed(side, vi, SENDS, send);
	meet(side);
}

static void timeout_first(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_RETURN code;

	/* The second waits, takes the request, and leaves it alone. */
	code = request_until(side, vi, "x", SHORT, &attributes);
	IS(side, code, VIP_TIMEOUT);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	meet(side);
	meet(side);
}

static void timeout_second(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection = await_request(side, "x", &attributes);
	VIP_RETURN code;

	meet(side);
	code = SEEN(side, VipConnectAccept(connection, vi));
	if (code != VIP_TIMEOUT && code != VIP_ERROR_RESOURCE)
		FAIL(side, "accepting one that has gone: %s", name_of(code));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	meet(side);
}

static void mismatch_first(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;

	IS(side, request_until(side, vi, "x", LIMIT, &attributes), VIP_SUCCESS);
	meet(side);
	OK(side, VipDisconnect(vi));
}

/* A mismatch leaves the request pending. */
static void mismatch_second(struct side *side)
{
	VIP_VI_ATTRIBUTES good = vi_attributes(side), bad = good, attributes;
	VIP_VI_HANDLE level, size, connected, right = new_vi(side);
	VIP_CONN_HANDLE connection = await_request(side, "x", &attributes);

	bad.ReliabilityLevel = side->level == VIP_SERVICE_UNRELIABLE ? VIP_SERVICE_RELIABLE_DELIVERY :
								       VIP_SERVICE_UNRELIABLE;
	level = new_vi_with(side, &bad, NULL, NULL);
	IS(side, VipConnectAccept(connection, level), VIP_INVALID_RELIABILITY_LEVEL);
	CHECK(side, state_of(side, level) == VIP_STATE_IDLE);
	bad = good;
	bad.MaxTransferSize -= 1;
	size = new_vi_with(side, &bad, NULL, NULL);
	IS(side, VipConnectAccept(connection, size), VIP_INVALID_MTU);
	CHECK(side, state_of(side, size) == VIP_STATE_IDLE);
	connected = new_vi(side);
	connect_own(side, connected, new_vi(side));
	IS(side, VipConnectAccept(connection, connected), VIP_INVALID_STATE);
	IS(side, VipConnectAccept(connection, NULL), VIP_INVALID_PARAMETER);
	OK(side, VipConnectAccept(connection, right));
	meet(side);
	await_error(side, VIP_ERROR_CONN_LOST);
	OK(side, VipDisconnect(right));
	/* The pair's other VI loses its connection when the NIC closes. */
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static void busy_vi(struct side *side)
{
	VIP_VI_HANDLE a = new_vi(side), b = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;

	connect_own(side, a, b);
	IS(side, request(side, a, "x", LIMIT, &attributes), VIP_INVALID_STATE);
	CHECK(side, state_of(side, a) == VIP_STATE_CONNECTED);
	OK(side, VipDisconnect(a));
	await_error(side, VIP_ERROR_CONN_LOST);
	IS(side, request(side, b, "x", LIMIT, &attributes), VIP_INVALID_STATE);
	CHECK(side, state_of(side, b) == VIP_STATE_ERROR);
}

static void busy_second(struct side *side)
{
	(void)side;
}

static void ask_in_thread(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;

	IS(side, request_until(side, side->argument, "x", VIP_INFINITE, &attributes), VIP_REJECT);
}

static void ask_for_success(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;

	IS(side, request_until(side, side->argument, "y", VIP_INFINITE, &attributes), VIP_SUCCESS);
}

static void pending_first(struct side *side)
{
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;

	in_thread(side, ask_in_thread, vi);
	becomes(side, vi, VIP_STATE_CONNECT_PENDING);
	meet(side);
	/* The second has the request now. */
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECT_PENDING);
	IS(side, request(side, vi, "y", LIMIT, &attributes), VIP_INVALID_STATE);
	IS(side, VipDestroyVi(vi), VIP_ERROR_RESOURCE);
	IS(side, VipDisconnect(vi), VIP_INVALID_STATE);
	meet(side);
	join(side);
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	OK(side, VipDestroyVi(vi));
	/* Again, to the other end. */
	vi = new_vi(side);
	in_thread(side, ask_for_success, vi);
	becomes(side, vi, VIP_STATE_CONNECT_PENDING);
	meet(side);
	join(side);
	CHECK(side, state_of(side, vi) == VIP_STATE_CONNECTED);
	meet(side);
	OK(side, VipDisconnect(vi));
}

static void pending_second(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection = await_request(side, "x", &attributes);

	meet(side);
	meet(side);
	OK(side, VipConnectReject(connection));
	connection = await_request(side, "y", &attributes);
	meet(side);
	OK(side, VipConnectAccept(connection, new_vi(side)));
	meet(side);
	await_error(side, VIP_ERROR_CONN_LOST);
}

/* The host part of a local address is nobody's business, and a discriminator is bytes of exactly its length. */
static void addresses_first(struct side *side)
{
	union address local = own_address(side, "me"), remote = peer_address(side, "xyz");
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_RETURN code;

	memset(local.net.HostAddress, 0x77, side->attributes.NicAddressLen);
	meet(side);
	remote.net.DiscriminatorLen--;
	IS(side, VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes), VIP_NO_MATCH);
	remote.net.DiscriminatorLen++;
	while ((code = SEEN(side, VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes))) == VIP_NO_MATCH)
		;
	IS(side, code, VIP_SUCCESS);
	meet(side);
}

static void addresses_second(struct side *side)
{
	union address local = own_address(side, "xyz"), remote;
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	VIP_VI_HANDLE vi = new_vi(side);

	memset(local.net.HostAddress, 0x99, side->attributes.NicAddressLen);
	meet(side);
	OK(side, VipConnectWait(side->nic, &local.net, LIMIT, &remote.net, &attributes, &connection));
	OK(side, VipConnectAccept(connection, vi));
	meet(side);
}

/* A request that comes between two waits is queued or refused with NO_MATCH, and never lost. */
static void many_first(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;
	VIP_VI_HANDLE vis[20];
	int i;

	for (i = 0; i < 20; i++) {
		vis[i] = new_vi(side);
		IS(side, request_until(side, vis[i], "x", LIMIT, &attributes), VIP_SUCCESS);
	}
	meet(side);
	for (i = 0; i < 20; i++) {
		CHECK(side, state_of(side, vis[i]) == VIP_STATE_CONNECTED);
		OK(side, VipDisconnect(vis[i]));
	}
}

static void many_second(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes;
	int i;

	for (i = 0; i < 20; i++)
		OK(side, VipConnectAccept(await_request(side, "x", &attributes), new_vi(side)));
	meet(side);
	for (i = 0; i < 20; i++)
		await_error(side, VIP_ERROR_CONN_LOST);
}

static void flush_first(struct side *side)
{
	struct buffer buffer = new_buffer(side, 1000, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receives[5], *done;
	VIP_UINT32 status;
	int i;

	for (i = 0; i < 5; i++) {
		receives[i] = message(side, (unsigned int)i + 1, &buffer, 0, 100);
		post(side, vi, RECEIVES, receives[i]);
	}
	connect_vi(side, vi);
	OK(side, VipDisconnect(vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	for (i = 0; i < 5; i++) {
		IS(side, VipRecvDone(vi, &done), VIP_DESCRIPTOR_ERROR);
		CHECK(side, done == receives[i]);
		status = saw_status(side, done->CS.Status);
		CHECK(side, status & VIP_STATUS_DONE && status & VIP_STATUS_DESC_FLUSHED_ERROR);
	}
	is_empty(side, vi, RECEIVES);
	is_empty(side, vi, SENDS);
	OK(side, VipDisconnect(vi));
}

static void flush_second(struct side *side)
{
	struct buffer buffer = new_buffer(side, 1000, NULL);
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_DESCRIPTOR *receive = message(side, 1, &buffer, 0, 100), *send = message(side, 2, &buffer, 0, 100);

	post(side, vi, RECEIVES, receive);
	connect_vi(side, vi);
	await_error(side, VIP_ERROR_CONN_LOST);
	becomes(side, vi, VIP_STATE_ERROR);
	CHECK(side, finish(side, vi, RECEIVES, receive) & VIP_STATUS_DESC_FLUSHED_ERROR);
	/* What is posted in Error comes back flushed, too. */
	receive = message(side, 1, &buffer, 0, 100);
	post(side, vi, RECEIVES, receive);
	CHECK(side, finish(side, vi, RECEIVES, receive) & VIP_STATUS_DESC_FLUSHED_ERROR);
	post(side, vi, SENDS, send);
	CHECK(side, finish(side, vi, SENDS, send) & VIP_STATUS_DESC_FLUSHED_ERROR);
	OK(side, VipDisconnect(vi));
	CHECK(side, state_of(side, vi) == VIP_STATE_IDLE);
	/* Idle again: it connects again. */
	connect_own(side, vi, new_vi(side));
	tolerate(side, VIP_ERROR_CONN_LOST);
}

static const struct test tests[] = {
	{ "a_request_is_accepted", "VG:vipconnectrequest VG:vipconnectaccept",
	  "VipConnectRequest:VIP_SUCCESS VipConnectWait:VIP_SUCCESS VipConnectAccept:VIP_SUCCESS "
	  "VipConnectAccept:VIP_INVALID_PARAMETER VipConnectReject:VIP_INVALID_PARAMETER VipDisconnect:VIP_SUCCESS "
	  "error:CONN_LOST state:Connected-Idle state:Connected-Error state:Error-Idle",
	  EACH, connecting_first, connecting_second },
	{ "nobody_waits", "C:mplite C:armci C:pm2-mad1",
	  "VipConnectRequest:VIP_NO_MATCH", EACH, nobody, nobody_second },
	{ "no_such_nic", "C:pm2", "VipConnectRequest:VIP_NOT_REACHABLE", ONCE, no_such_nic, NULL },
	{ "bad_parameters", "VG:vipconnectrequest",
	  "VipConnectRequest:VIP_INVALID_PARAMETER VipConnectWait:VIP_INVALID_PARAMETER "
	  "VipConnectAccept:VIP_INVALID_PARAMETER VipConnectReject:VIP_INVALID_PARAMETER",
	  ONCE, bad_requests, NULL },
	{ "a_wait_ends_in_time", "M:l", "VipConnectWait:VIP_TIMEOUT", ONCE, waiting_in_vain, NULL },
	{ "a_request_is_rejected", "VG:vipconnectrequest",
	  "VipConnectRequest:VIP_REJECT VipConnectReject:VIP_SUCCESS", EACH, rejected_first,
	  rejected_second },
	{ "a_request_ends_in_time", "VG:vipconnectrequest C:iometer",
	  "VipConnectRequest:VIP_TIMEOUT VipConnectAccept:VIP_TIMEOUT", EACH, timeout_first,
	  timeout_second },
	{ "a_mismatch_leaves_the_request_pending", "VG:vipconnectaccept",
	  "VipConnectAccept:VIP_INVALID_RELIABILITY_LEVEL VipConnectAccept:VIP_INVALID_MTU "
	  "VipConnectAccept:VIP_INVALID_STATE",
	  EACH, mismatch_first, mismatch_second },
	{ "a_vi_connects_once", "M:m", "VipConnectRequest:VIP_INVALID_STATE", ONCE, busy_vi, busy_second },
	{ "a_vi_is_pending_while_it_asks", "M:h",
	  "VipConnectRequest:VIP_INVALID_STATE VipDestroyVi:VIP_ERROR_RESOURCE VipDisconnect:VIP_INVALID_STATE "
	  "state:Idle-ConnectPending state:ConnectPending-Idle state:ConnectPending-Connected",
	  EACH, pending_first, pending_second },
	{ "discriminators_are_bytes_local_hosts_are_not_looked_at", "C:mpich-nt D", "VipConnectWait:VIP_SUCCESS", ONCE,
	  addresses_first, addresses_second },
	{ "no_request_is_lost_between_waits", "D", "VipConnectWait:VIP_SUCCESS", EACH, many_first, many_second },
	{ "disconnecting_flushes_both_ends", "C:iometer C:mpich-nt M:h",
	  "VipDisconnect:VIP_SUCCESS status:DESC_FLUSHED_ERROR state:Connected-Idle state:Connected-Error "
	  "state:Error-Idle VipRecvDone:VIP_DESCRIPTOR_ERROR",
	  EACH, flush_first, flush_second },
};

const struct group connection_group = GROUP("connection", NULL, tests);
