/*
 * vipl-conformance: runs the tests, and reports in the Test Anything Protocol.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

static const char usage[] =
	"usage: vipl-conformance NIC                   both roles on one NIC\n"
	"       vipl-conformance NIC OTHER-NIC         both roles in this process, a NIC each\n"
	"       vipl-conformance --serve NIC           the second role, for another process\n"
	"       vipl-conformance NIC --peer ADDRESS    the first role; ADDRESS is the second role's NIC, as 02:56:...\n"
	"       vipl-conformance --list                the tests, what they are derived from and what they cover\n"
	"\n"
	"  --only TEXT    only tests whose name (group/test/level) contains TEXT; may be given several times\n"
	"  --skip TEXT    none of those; may be given several times\n"
	"  --strict       a test fails if it has not seen all that it is listed for\n"
	"  --cycles N     connections that the scale tests make one after the other, for each level (3334)\n"
	"\n"
	"Instead of all other tests, those of a fault:\n"
	"  --link FAULT   of messages between the NICs. FAULT is what you have made happen to every message:\n"
	"                 drop     it is lost\n"
	"                 corrupt  it arrives damaged\n"
	"                 break    only its first part arrives\n"
	"                 answer   it is lost if the second NIC has sent it\n"
	"                 absent   nothing, but the second NIC is off the network while no program has it open\n"
	"  --fail COMMAND of the NIC. The shell command makes it fail; unless the NIC comes back, choose one test with --only\n"
	"\n"
	"Exit status: 0 all tests passed or were skipped, 1 some failed, 2 they could not be run.\n";

static const struct group *const groups[] = {
	&nic_group, &memory_group, &vi_group, &connection_group, &transfer_group, &queue_group, &cq_group, &error_group,
	&rdma_group, &attribute_group, &peer_group, &management_group, &notify_group, &name_group, &vendor_group, &scale_group,
	&drop_group, &corrupt_group, &break_group, &answer_group, &absent_group,
	&failure_group,
};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static const struct {
	VIP_RELIABILITY_LEVEL level;
	const char *name;
} levels[] = {
	{ VIP_SERVICE_UNRELIABLE, "unreliable" },
	{ VIP_SERVICE_RELIABLE_DELIVERY, "delivery" },
	{ VIP_SERVICE_RELIABLE_RECEPTION, "reception" },
};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))

/* Milliseconds of a test that are worth a remark. */
#define SLOW 1000UL

#define MAX_FILTERS 64
static const char *only[MAX_FILTERS], *without[MAX_FILTERS];
static size_t only_count, without_count;

/* What is wrong, of what groups need. */
static const char *fault, *fail_command;

static int is_strict;

static unsigned long cycles = 3334;
static unsigned long passed, failed, skipped;

/* One run of a test: where it stands in the tables, and at which level. The roles name it to each other. */
struct choice {
	VIP_UINT32 group, test, level, number;
	VIP_UINT32 cycles;
};

static int chosen(const char *name)
{
	int wanted = only_count == 0;
	size_t i;

	for (i = 0; i < only_count; i++)
		wanted |= strstr(name, only[i]) != NULL;
	for (i = 0; i < without_count; i++)
		wanted &= strstr(name, without[i]) == NULL;
	return wanted;
}

static int is_needed(const struct group *group)
{
	if (group->needs == NULL || fault == NULL)
		return group->needs == NULL && fault == NULL;
	return strcmp(group->needs, fault) == 0;
}

static int runs_at(const struct test *test, size_t level, const VIP_NIC_ATTRIBUTES *attributes)
{
	if (!(attributes->ReliabilityLevelSupport & levels[level].level))
		return 0;
	switch (test->levels) {
	case EACH:
		return 1;
	case RELIABLE:
		return levels[level].level != VIP_SERVICE_UNRELIABLE;
	case ONCE:
		break;
	}
	return levels[level].level == VIP_SERVICE_RELIABLE_DELIVERY;
}

static void list(void)
{
	size_t group, test;

	for (group = 0; group < GROUPS; group++)
		for (test = 0; test < groups[group]->count; test++) {
			const struct test *it = &groups[group]->tests[test];

			printf("%s/%s\t%s\t%s\t%s\t%s\t%s\n", groups[group]->name, it->name, it->source,
			       it->levels == ONCE ? "once" : it->levels == EACH ? "each" : "reliable",
			       it->second != NULL ? "two" : "one",
			       groups[group]->needs != NULL ? groups[group]->needs : "nothing", it->covers);
		}
}

static VIP_NIC_ATTRIBUTES attributes_of(const char *nic_name, unsigned char *host)
{
	VIP_NIC_ATTRIBUTES attributes;
	VIP_NIC_HANDLE nic;
	VIP_RETURN code = VipOpenNic(nic_name, &nic);

	if (code != VIP_SUCCESS || VipQueryNic(nic, &attributes) != VIP_SUCCESS) {
		fprintf(stderr, "cannot open NIC %s: %s\n", nic_name, name_of(code));
		exit(2);
	}
	if (attributes.NicAddressLen > MAX_HOST) {
		fprintf(stderr, "NIC addresses of %u bytes are too long\n", (unsigned int)attributes.NicAddressLen);
		exit(2);
	}
	memcpy(host, attributes.LocalNicAddress, attributes.NicAddressLen);
	VipCloseNic(nic);
	return attributes;
}

static void give(struct channel *channel, enum kind kind, const void *bytes, size_t length)
{
	struct packet packet;

	memset(&packet, 0, sizeof(packet));
	packet.kind = (VIP_UINT32)kind;
	packet.length = (VIP_UINT32)length;
	memcpy(packet.bytes, bytes, length);
	if (channel->send(channel, &packet) != 0) {
		fprintf(stderr, "the other role is gone\n");
		exit(2);
	}
}

static void set_up(struct side *side, enum role role, const struct choice *choice)
{
	side->role = role;
	side->test = &groups[choice->group]->tests[choice->test];
	side->level = levels[choice->level].level;
	side->number = choice->number;
	side->cycles = choice->cycles;
	side->fail_command = fail_command;
}

/* The second role: one run after the other, as the first says. Each run begins with the NICs' addresses. */
static void *serve(void *context)
{
	struct side *side = context;
	unsigned char own[MAX_HOST] = { 0 };
	struct choice choice;
	struct packet packet;
	static struct run run;

	attributes_of(side->nic_name, own);
	for (;;) {
		if (side->channel->receive(side->channel, &packet) != 0) {
			fprintf(stderr, "the first role is gone, or silent\n");
			exit(2);
		}
		if (packet.kind != START)
			return NULL;
		memcpy(&choice, packet.bytes, sizeof(choice));
		memcpy(side->peer_host, packet.bytes + sizeof(choice), MAX_HOST);
		if (choice.group >= GROUPS || choice.test >= groups[choice.group]->count || choice.level >= LEVELS) {
			fprintf(stderr, "the first role is of another version\n");
			exit(2);
		}
		give(side->channel, START, own, MAX_HOST);
		set_up(side, SECOND, &choice);
		run_role(side, &run);
	}
}

static void report(const struct side *side, const char *name)
{
	const struct run *run = side->run;
	int one_role = side->test->second == NULL;
	enum outcome peer = one_role ? PASSED : run->peer_outcome;
	unsigned long number = passed + failed + skipped + 1;
	const char *unseen = unseen_word(side->test->covers, side->level, run->seen | run->peer_seen);

	if (run->outcome == FAILED || peer == FAILED) {
		printf("not ok %lu - %s\n", number, name);
		if (run->outcome == FAILED)
			printf("# first: %s\n", run->reason);
		if (peer == FAILED)
			printf("# second: %s\n", run->peer_reason);
		printf("# from %s\n", side->test->source);
		failed++;
	} else if (run->outcome == SKIPPED || peer == SKIPPED) {
		printf("ok %lu - %s # SKIP %s\n", number, name,
		       run->outcome == SKIPPED ? run->reason : run->peer_reason);
		skipped++;
	} else {
		printf("%sok %lu - %s\n", unseen != NULL && is_strict ? "not " : "", number, name);
		if (unseen != NULL)
			printf("# not seen: %s\n", unseen);
		passed += unseen == NULL || !is_strict;
		failed += unseen != NULL && is_strict;
	}
	fflush(stdout);
}

static void run_one(struct side *side, const struct choice *choice, const char *name, const unsigned char *own)
{
	static struct run run;
	unsigned long began = now_ms();
	struct packet packet;

	set_up(side, FIRST, choice);
	if (side->test->second != NULL) {
		memset(&packet, 0, sizeof(packet));
		memcpy(packet.bytes, choice, sizeof(*choice));
		memcpy(packet.bytes + sizeof(*choice), own, MAX_HOST);
		give(side->channel, START, packet.bytes, sizeof(*choice) + MAX_HOST);
		if (side->channel->receive(side->channel, &packet) != 0 || packet.kind != START) {
			fprintf(stderr, "the second role is gone, or silent\n");
			exit(2);
		}
		memcpy(side->peer_host, packet.bytes, MAX_HOST);
	}
	run_role(side, &run);
	report(side, name);
	if (now_ms() - began >= SLOW)
		printf("# that took %lu ms\n", now_ms() - began);
}

static void run_all(struct side *side)
{
	unsigned char own[MAX_HOST] = { 0 };
	VIP_NIC_ATTRIBUTES attributes = attributes_of(side->nic_name, own);
	struct choice choice;
	char name[128];

	memset(&choice, 0, sizeof(choice));
	choice.cycles = (VIP_UINT32)cycles;
	printf("TAP version 13\n");
	for (choice.group = 0; choice.group < GROUPS; choice.group++)
		for (choice.test = 0; choice.test < groups[choice.group]->count && is_needed(groups[choice.group]);
		     choice.test++)
			for (choice.level = 0; choice.level < LEVELS; choice.level++) {
				const struct test *test = &groups[choice.group]->tests[choice.test];

				if (!runs_at(test, choice.level, &attributes))
					continue;
				snprintf(name, sizeof(name), "%s/%s%s%s", groups[choice.group]->name, test->name,
					 test->levels == ONCE ? "" : "/",
					 test->levels == ONCE ? "" : levels[choice.level].name);
				choice.number++;
				if (chosen(name))
					run_one(side, &choice, name, own);
			}
	give(side->channel, LEAVE, "", 0);
	printf("1..%lu\n", passed + failed + skipped);
	printf("# %lu passed, %lu failed, %lu skipped\n", passed, failed, skipped);
}

/* Reads an address such as 02:56:49:41:00:01; returns its bytes, or 0. */
static size_t read_address(const char *text, unsigned char *host)
{
	size_t length = 0;
	char *end;

	while (length < MAX_HOST) {
		unsigned long byte = strtoul(text, &end, 16);

		if (end == text || byte > 0xff)
			return 0;
		host[length++] = (unsigned char)byte;
		if (*end == 0)
			return length;
		if (*end != ':')
			return 0;
		text = end + 1;
	}
	return 0;
}

static int wrong_usage(void)
{
	fputs(usage, stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "serve", no_argument, NULL, 's' }, { "peer", required_argument, NULL, 'p' },
		{ "only", required_argument, NULL, 'o' }, { "skip", required_argument, NULL, 'x' },
		{ "cycles", required_argument, NULL, 'c' }, { "link", required_argument, NULL, 'f' },
		{ "fail", required_argument, NULL, 'F' }, { "strict", no_argument, NULL, 't' }, { "list", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	static struct side first, second;
	unsigned char host[MAX_HOST];
	const char *peer = NULL;
	struct channel *ends[2];
	size_t host_length;
	int is_server = 0;
	pthread_t thread;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's':
			is_server = 1;
			break;
		case 'p':
			peer = optarg;
			break;
		case 'o':
			if (only_count == MAX_FILTERS)
				return wrong_usage();
			only[only_count++] = optarg;
			break;
		case 'x':
			if (without_count == MAX_FILTERS)
				return wrong_usage();
			without[without_count++] = optarg;
			break;
		case 'c':
			cycles = strtoul(optarg, NULL, 10);
			if (cycles == 0)
				return wrong_usage();
			break;
		case 'f':
			fault = optarg;
			break;
		case 'F':
			fault = "fail";
			fail_command = optarg;
			break;
		case 't':
			is_strict = 1;
			break;
		case 'l':
			list();
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			return wrong_usage();
		}
	}
	if (optind == argc || argc - optind > 2 || ((is_server || peer != NULL) && argc - optind != 1))
		return wrong_usage();
	first.nic_name = argv[optind];
	second.nic_name = argc - optind == 2 ? argv[optind + 1] : argv[optind];
	if (is_server) {
		second.channel = serve_channel(second.nic_name);
		serve(&second);
		return 0;
	}
	if (peer != NULL) {
		host_length = read_address(peer, host);
		if (host_length == 0)
			return wrong_usage();
		first.channel = client_channel(first.nic_name, host, host_length);
		run_all(&first);
		return failed != 0;
	}
	local_channel(ends);
	first.channel = ends[0];
	second.channel = ends[1];
	if (pthread_create(&thread, NULL, serve, &second) != 0) {
		perror("a thread for the second role");
		return 2;
	}
	run_all(&first);
	pthread_join(thread, NULL);
	return failed != 0;
}
