/* Many connections, over and over and at once. What they leave behind is counted by who runs the suite. */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "suite.h"

#define STORM 256

/* What a process takes of its machine; both roles may be in one process. -1 where that cannot be known. */
struct footprint {
	long files;
	/* KiB of memory of its own */
	long memory;
};

/* KiB by which memory may grow with use: what allocators keep. */
#define GROWTH 1024L

static struct footprint footprint(void)
{
	struct footprint result = { -1, -1 };
	char line[128];
	DIR *folder = opendir("/proc/self/fd");
	FILE *status = fopen("/proc/self/status", "r");

	if (folder != NULL) {
		for (result.files = 0; readdir(folder) != NULL; result.files++)
			;
		closedir(folder);
	}
	if (status != NULL) {
		while (fgets(line, sizeof(line), status) != NULL)
			if (sscanf(line, "RssAnon: %ld kB", &result.memory) == 1)
				break;
		fclose(status);
	}
	return result;
}

/* One role after the other, as it takes a file to count files. */
static struct footprint measure(struct side *side)
{
	struct footprint result = { -1, -1 };

	meet(side);
	if (side->role == FIRST)
		result = footprint();
	meet(side);
	if (side->role == SECOND)
		result = footprint();
	meet(side);
	return result;
}

static void has_not_grown(struct side *side, struct footprint before)
{
	struct footprint now = measure(side);

	if (now.files != before.files)
		FAIL(side, "%ld files open, then %ld", before.files, now.files);
	if (now.memory > before.memory + GROWTH)
		FAIL(side, "%ld KiB of memory, then %ld KiB", before.memory, now.memory);
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

/* Uses so many VIs, one after the other, that a library that keeps something for each has it. */
static void use_vis(struct side *side)
{
	VIP_DESCRIPTOR *send, *receive;
	unsigned long i;
	VIP_VI_HANDLE vi;

	for (i = 0; i < 1280; i++) {
		vi = new_vi(side);
		send = descriptor(side, 1);
		receive = descriptor(side, 2);
		post(side, vi, SENDS, send);
		post(side, vi, RECEIVES, receive);
		OK(side, VipDestroyVi(vi));
	}
}

/* Register, connect, transfer, disconnect. */
static void cycle(struct side *side)
{
	union address local = own_address(side, "cycle"), remote = peer_address(side, "cycle"), from;
	VIP_VI_HANDLE vi = new_vi(side);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	struct buffer buffer;
	VIP_DESCRIPTOR *it;
	VIP_RETURN code;

	memset(&buffer, 0, sizeof(buffer));
	buffer.bytes = side->descriptors.bytes;
	OK(side, VipRegisterMem(side->nic, buffer.bytes, 64, NULL, &buffer.handle));
	it = message(side, 1, &buffer, 0, 64);
	if (side->role == FIRST) {
		while ((code = SEEN(side, VipConnectRequest(vi, &local.net, &remote.net, LIMIT, &attributes))) ==
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
	OK(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle));
}

static void cycles(struct side *side)
{
	/* Until all has been made that is made at first use, and allocators have what they keep. */
	unsigned long warm = side->cycles / 4 + 1, i;
	struct footprint before;

	use_vis(side);
	for (i = 0; i < warm; i++)
		cycle(side);
	before = measure(side);
	for (; i < side->cycles; i++)
		cycle(side);
	has_not_grown(side, before);
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
	/* One role is the first. */
	static struct attempt attempts[STORM];
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
		saw_return(side, "VipConnectRequest", attempts[i].code);
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
	static VIP_VI_HANDLE vis[STORM];
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

static void ask_peer(struct side *side, VIP_VI_HANDLE vi, int number, unsigned long timeout)
{
	union address local, remote;
	char here[8], there[8];

	snprintf(here, sizeof(here), "%c%d", side->role == FIRST ? 'a' : 'b', number);
	snprintf(there, sizeof(there), "%c%d", side->role == FIRST ? 'b' : 'a', number);
	local = own_address(side, here);
	remote = peer_address(side, there);
	OK(side, VipConnectPeerRequest(vi, &local.net, &remote.net, timeout));
}

/* All attempts at once, in opposite orders; every third of the first role has no partner. */
static void peer_storm(struct side *side)
{
	VIP_VI_HANDLE *vis = side->argument;
	VIP_VI_ATTRIBUTES attributes;
	int i;

	tolerate(side, VIP_ERROR_CONN_LOST);
	for (i = 0; i < STORM; i++)
		vis[i] = new_vi(side);
	meet(side);
	for (i = 0; i < STORM; i++) {
		int number = side->role == FIRST ? i : STORM - 1 - i;

		if (number % 3 != 2)
			ask_peer(side, vis[number], number, LIMIT);
		else if (side->role == FIRST)
			ask_peer(side, vis[number], number, SHORT);
	}
	for (i = 0; i < STORM; i++) {
		if (i % 3 != 2)
			IS(side, VipConnectPeerWait(vis[i], &attributes), VIP_SUCCESS);
		else if (side->role == FIRST)
			IS(side, VipConnectPeerWait(vis[i], &attributes), VIP_TIMEOUT);
	}
	meet(side);
	for (i = 0; i < STORM; i++) {
		OK(side, VipDisconnect(vis[i]));
		OK(side, VipDestroyVi(vis[i]));
	}
}

/* The first storm leaves what is made at first use; the second and third leave nothing. */
static void three_storms(struct side *side, void (*storm)(struct side *side))
{
	struct footprint before;

	use_vis(side);
	storm(side);
	before = measure(side);
	storm(side);
	storm(side);
	has_not_grown(side, before);
	all_vis(side);
}

static void storms(struct side *side)
{
	three_storms(side, side->role == FIRST ? storm_first : storm_second);
}

static void peer_storms(struct side *side)
{
	side->argument = new_memory(side, STORM * sizeof(VIP_VI_HANDLE), 16);
	three_storms(side, peer_storm);
}

/* Regions that others on the NIC may have: who runs the suite, and the suite itself for its roles' sake. */
#define OTHERS 8UL

/* After all the tests before there is room for as many regions as the NIC says. */
static void all_regions(struct side *side)
{
	unsigned long limit = side->attributes.MaxRegisterRegions, count = 0;
	VIP_MEM_HANDLE *handles, handle;
	char *bytes = new_memory(side, 1, 1);
	VIP_RETURN code = VIP_SUCCESS;

	if (limit > 1000000)
		skip(side, "the NIC takes more regions than are worth a test");
	handles = new_memory(side, (limit + 1) * sizeof(handle), 16);
	while (count <= limit && code == VIP_SUCCESS) {
		code = SEEN(side, VipRegisterMem(side->nic, bytes, 1, NULL, &handle));
		handles[count] = handle;
		count += code == VIP_SUCCESS;
	}
	IS(side, code, VIP_ERROR_RESOURCE);
	if (count + OTHERS < limit)
		FAIL(side, "there is room for %lu regions, not %lu", count, limit);
	while (count > 0)
		OK(side, VipDeregisterMem(side->nic, bytes, handles[--count]));
	OK(side, VipRegisterMem(side->nic, bytes, 1, NULL, &handle));
}

static const struct test tests[] = {
	{ "connections_come_and_go", "C:iometer", "VipConnectRequest:VIP_SUCCESS VipDisconnect:VIP_SUCCESS", EACH, cycles,
	  cycles },
	{ "storms_of_requests", "D", "VipConnectRequest:VIP_SUCCESS VipConnectRequest:VIP_REJECT", ONCE, storms, storms },
	{ "storms_of_peers", "D", "VipConnectPeerRequest:VIP_SUCCESS VipConnectPeerWait:VIP_SUCCESS "
	  "VipConnectPeerWait:VIP_TIMEOUT", ONCE, peer_storms, peer_storms },
	{ "regions_can_be_exhausted", "M:m", "VipRegisterMem:VIP_ERROR_RESOURCE", ONCE, all_regions, NULL },
};

const struct group scale_group = GROUP("scale", NULL, tests);
