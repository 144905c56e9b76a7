/* Processes that come and go with a context: fork, exec, dup, fd passing, kill; and the driver's end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel_agent.h"
#include "tap.h"

#define PINNED 256L
#define DRIVER "/sys/bus/virtio/drivers/vianic/"

static int exit_code(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A context with PINNED pages of registered memory. */
static void open_with_memory(struct context *ctx, uint8_t **memory, uint32_t *handle)
{
	*memory = anonymous_pages(PINNED);
	if (open_context(ctx) || register_memory(ctx->fd, *memory, PINNED * PAGE, 0, 0, handle))
		tap_bail_out("no context with memory");
}

/* What a process may not do with the context of another: the exit code says what it could. */
static int as_stranger(int fd)
{
	uint8_t *memory = anonymous_pages(1);
	uint32_t handle;

	return register_memory(fd, memory, PAGE, 0, 0, &handle) != VIANIC_STATUS_INVALID_PARAMETER;
}

int after_exec(int fd)
{
	return as_stranger(fd);
}

static void execute_self(int fd)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", fd);
	fcntl(fd, F_SETFD, 0);
	execl("/proc/self/exe", "kernel_agent", "after-exec", number, (char *)NULL);
	_exit(99);
}

static bool is_mapped(const volatile void *address)
{
	unsigned char resident;

	return mincore((void *)address, PAGE, &resident) == 0 || errno != ENOMEM;
}

static void test_fork(void)
{
	struct context ctx;
	uint32_t handle, vi;
	uint8_t *memory;
	int gate[2];
	pid_t pid;

	open_with_memory(&ctx, &memory, &handle);
	pid = fork();
	if (pid == 0)
		_exit(is_mapped(ctx.doorbell) || is_mapped(ctx.registers) ||
		      is_mapped(ctx.token_table) || is_mapped(ctx.mcq) || is_mapped(ctx.nra));
	tap_is(exit_code(pid), 0, "a child has none of its parent's mappings");
	pid = fork();
	if (pid == 0)
		_exit(as_stranger(ctx.fd));
	tap_is(exit_code(pid), 0, "a child cannot register memory in its parent's context");
	tap_ok(counter("contexts") == 1 && !create_vi(ctx.fd, &vi) &&
	       counter("pinned_pages") == PINNED, "a child's end leaves its parent's context alone");
	if (pipe(gate))
		tap_bail_out("no pipe");
	pid = fork();
	if (pid == 0) {
		char byte;

		close(gate[1]);
		_exit(read(gate[0], &byte, 1) != 0);
	}
	close(gate[0]);
	close_context(&ctx);
	tap_ok(counter("contexts") == 1 && counter("pinned_pages") == PINNED,
	       "a child's copy of the file keeps the context");
	close(gate[1]);
	tap_is(exit_code(pid), 0, "the child ends");
	tap_ok(nothing_left(), "and the context with it");
	munmap(memory, PINNED * PAGE);
}

static void test_exec(void)
{
	struct context ctx;
	uint32_t handle;
	uint8_t *memory;
	pid_t pid;

	open_with_memory(&ctx, &memory, &handle);
	pid = fork();
	if (pid == 0)
		execute_self(ctx.fd);
	tap_is(exit_code(pid), 0, "a child's new program cannot register memory");
	close_context(&ctx);
	munmap(memory, PINNED * PAGE);
	pid = fork();
	if (pid == 0) {
		open_with_memory(&ctx, &memory, &handle);
		execute_self(ctx.fd);
	}
	tap_is(exit_code(pid), 0, "nor can the new program of the process that made the context");
	tap_ok(nothing_left(), "nothing is left after exec");
}

static void test_dup(void)
{
	struct context ctx;
	uint32_t handle;
	uint8_t *memory;
	int copy;

	open_with_memory(&ctx, &memory, &handle);
	copy = dup(ctx.fd);
	close_context(&ctx);
	tap_is(counter("contexts"), 1, "a copy of the file keeps the context");
	tap_is(deregister_memory(copy, memory, handle), 0, "memory is deregistered by the copy");
	tap_is(register_memory(copy, memory, PINNED * PAGE, 0, 0, &handle), 0, "and registered");
	close(copy);
	tap_ok(nothing_left(), "the last copy's end is the context's");
	munmap(memory, PINNED * PAGE);
}

static void pass_file(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	sendmsg(socket, &message, 0);
}

static int take_file(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (!header)
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static void test_passed_file(void)
{
	struct context ctx;
	int sockets[2], fd;
	uint32_t handle, cq = 0;
	uint8_t *memory;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
		tap_bail_out("no sockets");
	pid = fork();
	if (pid == 0) {
		open_with_memory(&ctx, &memory, &handle);
		pass_file(sockets[1], ctx.fd);
		_exit(0);
	}
	close(sockets[1]);
	fd = take_file(sockets[0]);
	tap_is(exit_code(pid), 0, "a process passes its file on and ends");
	tap_ok(counter("contexts") == 1 && counter("pinned_pages") == PINNED,
	       "the passed file keeps the context and the dead process's pages");
	tap_is(as_stranger(fd), 0, "its receiver cannot register memory");
	tap_is(object_call(fd, VIANIC_IOC_CREATE_CQ, &cq), 0, "but use the card");
	close(fd);
	close(sockets[0]);
	tap_ok(nothing_left(), "closing the passed file unpins the pages");
}

/* Waits until a process sleeps, as it does in a call that waits. */
static bool falls_asleep(pid_t pid)
{
	char path[64], line[256], state = 0;
	int tries;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (tries = 0; tries < 3000 && state != 'S'; tries++) {
		FILE *file = fopen(path, "re");

		if (!file || !fgets(line, sizeof(line), file))
			return false;
		fclose(file);
		state = *(strrchr(line, ')') + 2);
		usleep(state == 'S' ? 0 : 10000);
	}
	return state == 'S';
}

static void be_killed(const char *call, int started)
{
	struct context ctx;
	uint32_t handle, vi, seen = 0;
	uint8_t *memory;

	open_with_memory(&ctx, &memory, &handle);
	if (create_vi(ctx.fd, &vi) || write(started, "", 1) != 1)
		_exit(1);
	close(started);
	if (!strcmp(call, "WAIT"))
		wait_for_word(ctx.fd, 9, &seen, VIANIC_INFINITE_MS);
	else if (!strcmp(call, "CONNECT_WAIT"))
		connect_wait(ctx.fd, "killed", VIANIC_INFINITE_MS, NULL);
	for (;;) {
		register_memory(ctx.fd, memory, PAGE, 0, 0, &handle);
		object_call(ctx.fd, VIANIC_IOC_CREATE_CQ, &seen);
		object_call_on(ctx.fd, VIANIC_IOC_DESTROY_CQ, seen);
		deregister_memory(ctx.fd, memory, handle);
	}
}

static void test_kill(void)
{
	static const char *const victims[] = { "WAIT", "CONNECT_WAIT", "commands" };
	int round, started[2];
	char byte;
	pid_t pid;

	for (round = 0; round < 9; round++) {
		const char *call = victims[round % 3];
		bool sleeps = strcmp(call, "commands");

		if (pipe2(started, O_CLOEXEC))
			tap_bail_out("no pipe");
		pid = fork();
		if (pid == 0)
			be_killed(call, started[1]);
		close(started[1]);
		if (read(started[0], &byte, 1) != 1)
			tap_bail_out("the victim did not start");
		close(started[0]);
		if (sleeps)
			tap_ok(falls_asleep(pid), "a process sleeps in %s", call);
		kill(pid, SIGKILL);
		tap_is(exit_code(pid), -SIGKILL, "it is killed in %s", call);
		tap_ok(nothing_left(), "and leaves nothing behind");
	}
}

static void test_unload(void)
{
	struct context ctx;
	uint32_t handle;
	uint8_t *memory;
	int fd;

	open_with_memory(&ctx, &memory, &handle);
	tap_ok(syscall(SYS_delete_module, "vianic", O_NONBLOCK) == -1 && errno == EWOULDBLOCK,
	       "the module stays while a file is open");
	fd = ctx.fd;
	ctx.fd = dup(fd);
	close(fd);
	tap_is(deregister_memory(ctx.fd, memory, handle), 0, "and the file goes on");
	close(ctx.fd);
	tap_ok(syscall(SYS_delete_module, "vianic", O_NONBLOCK) == -1 && errno == EWOULDBLOCK,
	       "the module stays while a file is mapped");
	unmap_context(&ctx);
	tap_ok(nothing_left(), "nothing is left");
	munmap(memory, PINNED * PAGE);
}

void test_processes(void)
{
	test_fork();
	test_exec();
	test_dup();
	test_passed_file();
	test_kill();
	test_unload();
}

/* Writes to a file of the driver in sysfs. */
static bool tell_driver(const char *file, const char *text)
{
	char path[128];
	bool told;
	int fd;

	snprintf(path, sizeof(path), DRIVER "%s", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	told = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return told;
}

struct waiter {
	struct context *ctx;
	int status;
};

static void *wait_for_ever(void *argument)
{
	struct waiter *waiter = argument;
	uint32_t seen = 0;

	waiter->status = wait_for_word(waiter->ctx->fd, 77, &seen, VIANIC_INFINITE_MS);
	return NULL;
}

static void *listen_for_ever(void *argument)
{
	struct waiter *waiter = argument;

	waiter->status = connect_wait(waiter->ctx->fd, "unbind", VIANIC_INFINITE_MS, NULL);
	return NULL;
}

static bool says_gone(int status)
{
	return status == VIANIC_STATUS_NIC_FAILED || status == -ENODEV;
}

/* The card goes away under a process that has its doorbell mapped. */
void test_unbind(void)
{
	char link[256] = "";
	struct context ctx, after;
	struct waiter waiter = { .ctx = &ctx }, listener = { .ctx = &ctx };
	uint32_t handle, number = 0;
	pthread_t threads[2];
	uint8_t *memory;
	const char *device;

	if (readlink("/sys/class/misc/vianic0/device", link, sizeof(link) - 1) < 0)
		tap_bail_out("the card has no device");
	device = basename(link);
	open_with_memory(&ctx, &memory, &handle);
	ctx.nra[1] = 0;
	ring_doorbell(&ctx);
	pthread_create(&threads[0], NULL, wait_for_ever, &waiter);
	pthread_create(&threads[1], NULL, listen_for_ever, &listener);
	tap_ok(tell_driver("unbind", device), "the driver lets go of the card");
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	tap_ok(says_gone(waiter.status), "WAIT ends");
	tap_ok(says_gone(listener.status), "CONNECT_WAIT ends");
	tap_is(object_call(ctx.fd, VIANIC_IOC_CREATE_CQ, &number), -ENODEV, "calls are ENODEV");
	tap_is(deregister_memory(ctx.fd, memory, handle), -ENODEV, "all of them");
	tap_ok(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ctx.fd, VIANIC_MMAP_MCQ) == MAP_FAILED &&
	       errno == ENODEV, "and mmap");
	tap_is(*(volatile uint32_t *)(ctx.token_table + VIANIC_TOKEN_TABLE_NIC_STATE),
	       VIANIC_NIC_STATE_CLOSED, "the Token Table says so");
	ring_doorbell(&ctx);
	ctx.nra[1] = 1;
	ctx.mcq[0] = 1;
	tap_ok(ctx.registers->magic == 0, "the mappings are harmless");
	tap_ok(access(DEVICE, F_OK) == -1, "the device file is gone");

	tap_ok(tell_driver("bind", device), "the driver takes the card again");
	tap_is(open_context(&after), 0, "a new context on the same card");
	tap_is(register_memory(after.fd, memory, PAGE, 0, 0, &handle), 0, "its memory");
	tap_is(object_call(ctx.fd, VIANIC_IOC_CREATE_CQ, &number), -ENODEV,
	       "the old context does not come back");
	close_context(&ctx);
	close_context(&after);
	tap_ok(nothing_left(), "nothing is left of both");
	munmap(memory, PINNED * PAGE);
}
