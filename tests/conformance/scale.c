/* Many connections, over and over and at once. What they leave behind is counted by who runs the suite. */
#include <dirent.h>
#include <pthread.h>
#include <string.h>

#include "suite.h"

#define STORM 256

/* Files that the process has open, or -1 where that cannot be known. Both roles may be in one process. */
static long open_files(void)
{
	DIR *folder = opendir("/proc/self/fd");
	long count = 0;

	if (folder == NULL)
		return -1;
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

/* All VIs that the NIC has can still be made. */
static void all_vis(struct side *side)
{
	unsigned long i, count = side->attributes.MaxVI;
	VIP_VI_HANDLE *vis;

	if (count > 4096)
		return;
	vis = new_memory(side, count * sizeof(*vis), 16);
	for (i = 0; i < count; i++)
		vis[i] = new_vi(side);
	while (i > 0)
		OK(side, VipDestroyVi(vis[--i]));
}

/* Connect, transfer, disconnect. */
static void cycles(struct side *side)
{
	struct buffer buffer = new_buffer(side, 64, NULL);
	union address local = own_address(side, "cycle"), remote = peer_address(side, "cycle"), from;
	VIP_VI_ATTRIBUTES attributes;
	VIP_DESCRIPTOR *it;
	VIP_CONN_HANDLE connection;
	VIP_VI_HANDLE vi;
	VIP_RETURN code;
	unsigned long i;
	long files = 0;

	for (i = 0; i < side->cycles; i++) {
		/* Not before all that is made at first use has been. */
		if (i == 1) {
			meet(side);
			if (side->role == FIRST)
				files = open_files();
			meet(side);
		}
		vi = new_vi(side);
		it = message(side, 1, &buffer, 0, 64);
		if (side->role == FIRST) {
			while ((code = VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes)) ==
			       VIP_NO_MATCH)
				;
			IS(side, code, VIP_SUCCESS);
			post(side, vi, SENDS, it);
			succeed(side, vi, SENDS, it);
			becomes(side, vi, VIP_STATE_ERROR); /* the receiver leaves first */
			CHECK(side, await_error(side, VIP_ERROR_CONN_LOST).ViHandle == vi);
		} else {
			post(side, vi, RECEIVES, it);
			OK(side, VipConnectWait(side->nic, &local.net, LIMIT, &from.net, &attributes, &connection));
			OK(side, VipConnectAccept(connection, vi));
			succeed(side, vi, RECEIVES, it);
		}
		OK(side, VipDisconnect(vi));
		OK(side, VipDestroyVi(vi));
	}
	meet(side);
	if (side->role == FIRST && i > 1)
		CHECK(side, open_files() == files);
	meet(side);
	all_vis(side);
}

struct attempt {
	pthread_t thread;
	struct side *side;
	VIP_VI_HANDLE vi;
	VIP_RETURN code;
};

static void *attempt(void *context)
{
	struct attempt *attempt = context;
	union address local = own_address(attempt->side, "me"), remote = peer_address(attempt->side, "storm");
	VIP_VI_ATTRIBUTES attributes;

	do
		attempt->code = VipConnectRequest(attempt->vi, &local.net, &remote.net, LIMIT, &attributes);
	while (attempt->code == VIP_NO_MATCH);
	return NULL;
}

/* All attempts at once; every third is refused. */
static void storm_first(struct side *side)
{
	struct attempt *attempts = new_memory(side, STORM * sizeof(*attempts), 16);
	int i, connected = 0, refused = 0;

	tolerate(side, VIP_ERROR_CONN_LOST);
	for (i = 0; i < STORM; i++) {
		attempts[i].side = side;
		attempts[i].vi = new_vi(side);
	}
	for (i = 0; i < STORM; i++)
		CHECK(side, pthread_create(&attempts[i].thread, NULL, attempt, &attempts[i]) == 0);
	for (i = 0; i < STORM; i++)
		pthread_join(attempts[i].thread, NULL);
	for (i = 0; i < STORM; i++) {
		connected += attempts[i].code == VIP_SUCCESS;
		refused += attempts[i].code == VIP_REJECT;
	}
	CHECK(side, refused == STORM / 3 && connected == STORM - STORM / 3);
	meet(side);
	for (i = 0; i < STORM; i++) {
		OK(side, VipDisconnect(attempts[i].vi));
		OK(side, VipDestroyVi(attempts[i].vi));
	}
}

static void storm_second(struct side *side)
{
	VIP_VI_HANDLE *vis = new_memory(side, STORM * sizeof(*vis), 16);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	int i;

	tolerate(side, VIP_ERROR_CONN_LOST);
	for (i = 0; i < STORM; i++) {
		connection = await_request(side, "storm", &attributes);
		vis[i] = new_vi(side);
		if (i % 3 == 2)
			OK(side, VipConnectReject(connection));
		else
			OK(side, VipConnectAccept(connection, vis[i]));
	}
	meet(side);
	for (i = 0; i < STORM; i++) {
		OK(side, VipDisconnect(vis[i]));
		OK(side, VipDestroyVi(vis[i]));
	}
}

static const struct test tests[] = {
	{ "connections_come_and_go", "C:iometer", "VipConnectRequest:VIP_SUCCESS VipDisconnect:VIP_SUCCESS", EACH, cycles,
	  cycles },
	{ "a_storm_of_requests", "D", "VipConnectRequest:VIP_SUCCESS VipConnectRequest:VIP_REJECT", ONCE, storm_first,
	  storm_second },
};

const struct group scale_group = GROUP("scale", tests);
