/*
 * Memory that comes and goes under RDMA traffic. Two processes with four threads each register regions of random sizes and
 * alignments, write to each other's, check every byte around them, and deregister them while their peers go on writing.
 *
 * What a peer writes to a region that is deregistered goes over an unreliable connection, which stands when it is refused. Once a
 * descriptor that was posted after VipDeregisterMem has completed, not one byte of the memory may change.
 *
 * Either process may be killed once it is said that they are under way. The other one then loses its connections at any point of its
 * rounds, checks what is around its regions, and ends; the exit status is 3.
 *
 * usage: churn NIC PEERS-NIC SECONDS SEED; 0 seconds: until the end of the input
 */
#define _GNU_SOURCE

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vipl.h>

#define THREADS 4
#define PAGE 4096UL
#define MAX_SIZE_LOG2 26
/* Pages around a region that nobody may write to, in front and behind. */
#define GUARD (2 * PAGE)
/* Messages written to a region while it is registered, and while it ceases to be. */
#define PIECES 4
#define STRAYS 16
#define STRAY_SIZE 65536UL
#define STRAY 0xee
#define RECEIVES 16
#define MESSAGE_SIZE 64
#define TIMEOUT 120000
#define ADDRESS_SIZE 64
#define FOREVER ((time_t)LONG_MAX)
/* The exit status when the other process is gone. */
#define LOST 3

#define CHECK(call) expect(__LINE__, #call, (int)(call))
#define FAIL(what) expect(__LINE__, (what), -1)

/* What the sides of a connection say to each other, each in this order in every round. */
enum kind { OFFER, WRITTEN, CHECKED, FENCE, QUIET };

struct message {
	unsigned long kind, address, length, seed, last;
	VIP_MEM_HANDLE handle;
};

/* A mapping with a region in it. */
struct arena {
	unsigned char *base, *region;
	unsigned long mapped, length;
	/* What the memory holds where nobody may write. */
	unsigned char background;
	VIP_MEM_HANDLE handle;
};

/* Where nobody may write to the memory of a round. */
enum closed { NOTHING, GUARDS, ALL };

struct worker {
	int number, serves;
	unsigned long random;
	VIP_VI_HANDLE reliable, unreliable;
	/* Descriptors, then messages: receives first, then one to send. */
	unsigned char *memory;
	VIP_MEM_HANDLE handle;
	int next_receive;
	unsigned long rounds, bytes;
	struct arena arena;
	enum closed closed;
	int lost;
};

static VIP_NIC_HANDLE nic;
static VIP_NIC_ATTRIBUTES nic_attributes;
static const char *side_name;
static unsigned long seed;
static volatile time_t deadline;
static volatile int closing;

static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long refused;
static int under_way;

static void expect(int line, const char *what, int code)
{
	if (code == VIP_SUCCESS)
		return;
	fprintf(stderr, "churn.c:%d: %s (%d)\n", line, what, code);
	_exit(1);
}

static void on_error(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
	(void)context;
	/* Who needs a connection that is lost notices by itself. */
	if (error->ErrorCode != VIP_ERROR_RDMAW_PROT && error->ErrorCode != VIP_ERROR_CONN_LOST &&
	    !closing)
		FAIL("an error that nothing has caused");
	pthread_mutex_lock(&count_lock);
	refused += error->ErrorCode == VIP_ERROR_RDMAW_PROT;
	pthread_mutex_unlock(&count_lock);
}

static unsigned long draw(unsigned long *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 2685821657736338717UL;
}

static unsigned long below(unsigned long *state, unsigned long limit)
{
	return (draw(state) >> 16) % limit;
}

/* --- Memory --- */

/* Sizes of every order of magnitude alike. */
static void map_arena(struct worker *worker, struct arena *arena, unsigned long length,
		      unsigned char background)
{
	unsigned long offset = below(&worker->random, PAGE);

	arena->length = length;
	arena->background = background;
	arena->mapped = 2 * GUARD + ((offset + length + PAGE - 1) & ~(PAGE - 1));
	arena->base = mmap(NULL, arena->mapped, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena->base == MAP_FAILED)
		FAIL("out of memory");
	memset(arena->base, background, arena->mapped);
	arena->region = arena->base + GUARD + offset;
}

static void register_arena(struct arena *arena)
{
	VIP_MEM_ATTRIBUTES attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipRegisterMem(nic, arena->region, arena->length, &attributes, &arena->handle));
}

static int is_all(const unsigned char *bytes, unsigned long length, unsigned char value)
{
	return length == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Piece number i of what is written to a region: where, and how much. Both sides know. */
static void piece(unsigned long seed, unsigned long length, int i, unsigned long *offset,
		  unsigned long *size)
{
	unsigned long part = length / PIECES, state = seed + 7919UL * (unsigned long)(i + 1);
	unsigned long most = part < nic_attributes.MaxTransferSize ? part
								   : nic_attributes.MaxTransferSize;

	*size = most ? 1 + below(&state, most) : (i == 0);
	*offset = part * (unsigned long)i + (part ? below(&state, part - *size + 1) : 0);
}

/* Bytes that tell where they belong. */
static void fill_piece(unsigned char *bytes, unsigned long seed, int i, unsigned long size)
{
	unsigned long at;

	memset(bytes, (int)((seed + (unsigned long)i) & 0x7f), size);
	for (at = 0; at + sizeof(at) <= size; at += 512)
		memcpy(bytes + at, &at, sizeof(at));
}

/* The pieces, and nothing else, have changed. */
static void check_pieces(const struct arena *arena, unsigned long seed)
{
	unsigned char *expected = malloc(nic_attributes.MaxTransferSize);
	const unsigned char *at = arena->base, *end = arena->base + arena->mapped;
	unsigned long offset, size;
	int i;

	if (expected == NULL)
		FAIL("out of memory");
	for (i = 0; i < PIECES; i++) {
		piece(seed, arena->length, i, &offset, &size);
		if (size == 0)
			continue;
		if (!is_all(at, (unsigned long)(arena->region + offset - at), arena->background))
			FAIL("bytes beside those that were written have changed");
		fill_piece(expected, seed, i, size);
		if (memcmp(arena->region + offset, expected, size) != 0)
			FAIL("what was written has not come");
		at = arena->region + offset + size;
	}
	if (!is_all(at, (unsigned long)(end - at), arena->background))
		FAIL("bytes behind those that were written have changed");
	free(expected);
}

static void check_closed(const struct arena *arena, enum closed closed)
{
	const unsigned char *behind = arena->region + arena->length;

	if (closed == ALL && !is_all(arena->base, arena->mapped, arena->background))
		FAIL("memory has changed that is not registered any more");
	if (closed == GUARDS &&
	    !(is_all(arena->base, (unsigned long)(arena->region - arena->base), arena->background) &&
	      is_all(behind, arena->mapped - (unsigned long)(behind - arena->base),
		     arena->background)))
		FAIL("bytes around a region have changed");
}

/* The other process is gone. */
static void lose(struct worker *worker)
{
	check_closed(&worker->arena, worker->closed);
	worker->lost = 1;
	pthread_exit(NULL);
}

/* Returns if a wait for a descriptor has given one that was carried out. */
static void check_done(struct worker *worker, VIP_RETURN code, const VIP_DESCRIPTOR *done)
{
	if (code == VIP_SUCCESS)
		return;
	if (code != VIP_DESCRIPTOR_ERROR)
		expect(__LINE__, "a wait for a descriptor", (int)code);
	if (done->Control.Status & VIP_STATUS_ERROR_MASK &
	    ~(VIP_STATUS_DESC_FLUSHED_ERROR | VIP_STATUS_TRANSPORT_ERROR))
		FAIL("a descriptor has an error that nothing has caused");
	lose(worker);
}

/* --- Messages --- */

static VIP_DESCRIPTOR *descriptor(const struct worker *worker, int i)
{
	return (VIP_DESCRIPTOR *)worker->memory + i;
}

static struct message *message(const struct worker *worker, int i)
{
	unsigned char *messages = worker->memory + (RECEIVES + STRAYS + 1) * sizeof(VIP_DESCRIPTOR);

	return (struct message *)(messages + i * MESSAGE_SIZE);
}

static void fill_descriptor(VIP_DESCRIPTOR *d, const void *data, VIP_MEM_HANDLE handle,
			    unsigned long length, const struct message *remote,
			    unsigned long remote_offset)
{
	int i = remote != NULL;

	memset(d, 0, sizeof(*d));
	d->Control.SegCount = (VIP_UINT16)(i + 1);
	d->Control.Length = (VIP_UINT32)length;
	if (remote != NULL) {
		d->Control.Control = VIP_CONTROL_OP_RDMAWRITE;
		d->DS[0].Remote.Data.AddressBits = remote->address + remote_offset;
		d->DS[0].Remote.Handle = remote->handle;
	}
	d->DS[i].Local.Data.AddressBits = (unsigned long)data;
	d->DS[i].Local.Handle = handle;
	d->DS[i].Local.Length = (VIP_UINT32)length;
}

static void post_receive(struct worker *worker, int i)
{
	fill_descriptor(descriptor(worker, i), message(worker, i), worker->handle, MESSAGE_SIZE, NULL,
			0);
	CHECK(VipPostRecv(worker->reliable, descriptor(worker, i), worker->handle));
}

static void finish_send(struct worker *worker, VIP_VI_HANDLE vi)
{
	VIP_DESCRIPTOR *done = NULL;
	VIP_RETURN code = VipSendWait(vi, TIMEOUT, &done);

	check_done(worker, code, done);
}

/* Returns when the card has done with it. */
static void say(struct worker *worker, const struct message *what)
{
	VIP_DESCRIPTOR *d = descriptor(worker, RECEIVES);
	struct message *room = message(worker, RECEIVES);

	*room = *what;
	fill_descriptor(d, room, worker->handle, sizeof(*room), NULL, 0);
	CHECK(VipPostSend(worker->reliable, d, worker->handle));
	finish_send(worker, worker->reliable);
}

static void say_kind(struct worker *worker, enum kind kind)
{
	struct message what;

	memset(&what, 0, sizeof(what));
	what.kind = kind;
	say(worker, &what);
}

static struct message hear(struct worker *worker, enum kind kind)
{
	int i = worker->next_receive;
	struct message heard;
	VIP_DESCRIPTOR *done = NULL;
	VIP_RETURN code = VipRecvWait(worker->reliable, TIMEOUT, &done);

	check_done(worker, code, done);
	if (done != descriptor(worker, i))
		FAIL("a receive that is not the next one");
	heard = *message(worker, i);
	if (heard.kind != (unsigned long)kind)
		FAIL("a message that is not the next one");
	post_receive(worker, i);
	worker->next_receive = (i + 1) % RECEIVES;
	return heard;
}

/* --- Rounds --- */

/* Writes the pieces of the peer's region, from a region that lives no longer than it takes. */
static void write_pieces(struct worker *worker, const struct message *peer)
{
	VIP_DESCRIPTOR *d = descriptor(worker, RECEIVES);
	unsigned long offset, size;
	struct arena source;
	int i;

	for (i = 0; i < PIECES; i++) {
		piece(peer->seed, peer->length, i, &offset, &size);
		if (size == 0)
			continue;
		map_arena(worker, &source, size, 0);
		fill_piece(source.region, peer->seed, i, size);
		register_arena(&source);
		fill_descriptor(d, source.region, source.handle, size, peer, offset);
		CHECK(VipPostSend(worker->reliable, d, worker->handle));
		finish_send(worker, worker->reliable);
		CHECK(VipDeregisterMem(nic, source.region, source.handle));
		munmap(source.base, source.mapped);
		worker->bytes += size;
	}
}

static void post_strays(struct worker *worker, const struct arena *source,
			const struct message *peer, int first, int end)
{
	unsigned long size, offset;
	int i;

	for (i = first; i < end; i++) {
		size = peer->length < STRAY_SIZE ? peer->length : STRAY_SIZE;
		offset = below(&worker->random, peer->length - size + 1);
		fill_descriptor(descriptor(worker, RECEIVES + 1 + i), source->region, source->handle,
				size, peer, offset);
		CHECK(VipPostSend(worker->unreliable, descriptor(worker, RECEIVES + 1 + i),
				  worker->handle));
	}
}

/* Said once, when every thread of this process, and with it every thread of the other one, has done a round. */
static void first_round_done(void)
{
	pthread_mutex_lock(&count_lock);
	if (++under_way == THREADS) {
		printf("%s under way\n", side_name);
		fflush(stdout);
	}
	pthread_mutex_unlock(&count_lock);
}

static int round_trip(struct worker *worker, const struct arena *strays)
{
	struct arena *arena = &worker->arena;
	struct message own, peer;
	int i;

	map_arena(worker, arena,
		  1 + below(&worker->random, 1UL << below(&worker->random, MAX_SIZE_LOG2 + 1)),
		  (unsigned char)(0x80 | below(&worker->random, 0x40)));
	worker->closed = GUARDS;
	register_arena(arena);
	memset(&own, 0, sizeof(own));
	own.kind = OFFER;
	own.address = (unsigned long)arena->region;
	own.handle = arena->handle;
	own.length = arena->length;
	own.seed = draw(&worker->random);
	own.last = time(NULL) >= deadline;
	say(worker, &own);
	peer = hear(worker, OFFER);

	write_pieces(worker, &peer);
	say_kind(worker, WRITTEN);
	hear(worker, WRITTEN);
	check_pieces(arena, own.seed);
	say_kind(worker, CHECKED);
	hear(worker, CHECKED);

	/* From here on the peer writes what it will, before, while and after the region ends. */
	post_strays(worker, strays, &peer, 0, STRAYS / 2);
	CHECK(VipDeregisterMem(nic, arena->region, arena->handle));
	/* What the card was copying at that moment, it has copied when this has completed. */
	say_kind(worker, FENCE);
	arena->background ^= 0x40;
	memset(arena->base, arena->background, arena->mapped);
	worker->closed = ALL;
	post_strays(worker, strays, &peer, STRAYS / 2, STRAYS);
	for (i = 0; i < STRAYS; i++)
		finish_send(worker, worker->unreliable);
	say_kind(worker, QUIET);
	hear(worker, FENCE);
	hear(worker, QUIET);
	check_closed(arena, worker->closed);
	worker->closed = NOTHING;
	munmap(arena->base, arena->mapped);
	if (worker->rounds++ == 0)
		first_round_done();
	return worker->serves ? !own.last : !peer.last;
}

/* --- Connections --- */

static VIP_NET_ADDRESS *address(const struct worker *worker, const char *vi, const VIP_UINT8 *host)
{
	VIP_NET_ADDRESS *made = calloc(1, ADDRESS_SIZE);
	VIP_UINT16 length = nic_attributes.NicAddressLen;
	char *name;

	if (made == NULL)
		FAIL("out of memory");
	name = (char *)made->HostAddress + length;
	sprintf(name, "churn %lu %d %s", seed, worker->number, vi);
	made->HostAddressLen = length;
	made->DiscriminatorLen = (VIP_UINT16)strlen(name);
	memcpy(made->HostAddress, host, length);
	return made;
}

static void connect_vi(struct worker *worker, VIP_VI_HANDLE vi, const char *name,
		       const VIP_UINT8 *peer_host)
{
	VIP_NET_ADDRESS *local = address(worker, name, nic_attributes.LocalNicAddress);
	VIP_NET_ADDRESS *remote = address(worker, name, peer_host);
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	VIP_RETURN code;

	if (worker->serves) {
		CHECK(VipConnectWait(nic, local, TIMEOUT, remote, &attributes, &connection));
		CHECK(VipConnectAccept(connection, vi));
	} else {
		do
			code = VipConnectRequest(vi, local, remote, TIMEOUT, &attributes);
		while (code == VIP_NO_MATCH);
		CHECK(code);
	}
	free(local);
	free(remote);
}

static VIP_VI_HANDLE create_vi(VIP_RELIABILITY_LEVEL level)
{
	VIP_VI_ATTRIBUTES attributes;
	VIP_VI_HANDLE vi;

	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = level;
	attributes.MaxTransferSize = nic_attributes.MaxTransferSize;
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &vi));
	return vi;
}

static VIP_UINT8 peer_host[16];

static void *work(void *context)
{
	struct worker *worker = context;
	struct arena strays;
	void *memory = NULL;
	int i;

	if (posix_memalign(&memory, PAGE, 2 * PAGE) != 0)
		FAIL("out of memory");
	worker->memory = memory;
	CHECK(VipRegisterMem(nic, memory, 2 * PAGE, NULL, &worker->handle));
	worker->reliable = create_vi(VIP_SERVICE_RELIABLE_DELIVERY);
	worker->unreliable = create_vi(VIP_SERVICE_UNRELIABLE);
	map_arena(worker, &strays, STRAY_SIZE, STRAY);
	register_arena(&strays);
	for (i = 0; i < RECEIVES; i++)
		post_receive(worker, i);
	connect_vi(worker, worker->reliable, "reliable", peer_host);
	connect_vi(worker, worker->unreliable, "unreliable", peer_host);
	while (round_trip(worker, &strays))
		;
	return NULL;
}

static void *await_end_of_input(void *unused)
{
	char byte;

	/* Not by stdio: exit would wait for its lock. */
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	deadline = 0;
	return unused;
}

/* Runs one process. Its threads of the same number meet. */
static int run(const char *name, int serves, int tell, int hear_from)
{
	struct worker workers[THREADS];
	unsigned long rounds = 0, bytes = 0;
	pthread_t threads[THREADS], reader;
	char done = 1;
	int i, lost = 0;

	side_name = serves ? "server" : "client";
	CHECK(VipOpenNic(name, &nic));
	CHECK(VipQueryNic(nic, &nic_attributes));
	CHECK(VipErrorCallback(nic, NULL, on_error));
	if (write(tell, nic_attributes.LocalNicAddress, nic_attributes.NicAddressLen) < 0 ||
	    read(hear_from, peer_host, nic_attributes.NicAddressLen) !=
		    (ssize_t)nic_attributes.NicAddressLen)
		FAIL("the other process is gone");
	memset(workers, 0, sizeof(workers));
	if (serves && deadline == FOREVER &&
	    pthread_create(&reader, NULL, await_end_of_input, NULL) != 0)
		FAIL("no thread");
	for (i = 0; i < THREADS; i++) {
		workers[i].number = i;
		workers[i].serves = serves;
		workers[i].random = (seed + 1) * 0x9e3779b97f4a7c15UL + (unsigned long)(2 * i + serves);
		if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
			FAIL("no thread");
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		rounds += workers[i].rounds;
		bytes += workers[i].bytes;
		lost |= workers[i].lost;
	}
	if (lost)
		return LOST;
	/* Connections end from here on. */
	closing = 1;
	if (write(tell, &done, 1) < 0 || read(hear_from, &done, 1) != 1)
		FAIL("the other process is gone");
	CHECK(VipCloseNic(nic));
	printf("%s: %lu rounds, %lu bytes written, %lu writes to ended regions refused\n", side_name,
	       rounds, bytes, refused);
	if (rounds < THREADS || refused == 0)
		FAIL("too little has happened to show anything");
	return 0;
}

/* One of the two processes that meet. */
static pid_t start(char **names, int serves, const int *tell, const int *hear_from)
{
	pid_t child = fork();

	if (child < 0)
		FAIL("no process");
	if (child == 0) {
		/* So that the end of the other process is the end of the pipe. */
		close(tell[0]);
		close(hear_from[1]);
		exit(run(names[serves ? 0 : 1], serves, tell[1], hear_from[0]));
	}
	return child;
}

int main(int argc, char **argv)
{
	int there[2], back[2], status, killed = 0, lost = 0, i;
	pid_t server, client;

	if (argc != 5) {
		fprintf(stderr, "usage: churn NIC PEERS-NIC SECONDS SEED\n");
		return 2;
	}
	deadline = atol(argv[3]) == 0 ? FOREVER : time(NULL) + atol(argv[3]);
	seed = strtoul(argv[4], NULL, 10);
	if (pipe(there) != 0 || pipe(back) != 0)
		FAIL("no pipe");
	server = start(argv + 1, 1, there, back);
	client = start(argv + 1, 0, back, there);
	for (i = 0; i < 2; i++) {
		close(there[i]);
		close(back[i]);
	}
	printf("server %d client %d\n", (int)server, (int)client);
	fflush(stdout);
	for (i = 0; i < 2; i++) {
		if (wait(&status) < 0)
			FAIL("no process to wait for");
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			killed++;
		else if (WIFEXITED(status) && WEXITSTATUS(status) == LOST)
			lost++;
		else if (status != 0)
			FAIL("a process has failed");
	}
	if (killed + lost == 0)
		return 0;
	if (killed != 1 || lost != 1)
		FAIL("a process is gone that nobody has killed");
	return LOST;
}
