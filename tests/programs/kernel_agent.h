/* What the tests of the Kernel Agent share. */
#ifndef KERNEL_AGENT_H
#define KERNEL_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "vianic_abi.h"

#define DEVICE "/dev/vianic0"
#define PAGE 4096UL

/* A file with a context, and its mappings. */
struct context {
	int fd;
	struct vianic_open_context info;
	uint8_t *token_table;
	uint8_t *mcq;
	volatile uint32_t *nra;
	volatile uint8_t *doorbell;
	volatile struct vianic_registers *registers;
};

/* A descriptor as it lies in memory. */
struct descriptor {
	uint64_t next;
	uint32_t next_handle;
	uint16_t segments;
	uint16_t control;
	uint32_t reserved;
	uint32_t immediate;
	uint32_t length;
	uint32_t status;
	struct {
		uint64_t address;
		uint32_t handle;
		uint32_t length;
	} segment[2];
} __attribute__((aligned(64)));

#define CONTROL_IMMEDIATE 0x0004
#define STATUS_DONE 0x0001
#define STATUS_ERRORS 0x01fe
#define STATUS_FLUSHED 0x0020

/* Numbers of /sys/class/misc/vianic0; "settled" waits a while for the one that is wanted. */
long counter(const char *name);
long settled(const char *name, long wanted);
bool nothing_left(void);

size_t token_table_size(const struct vianic_open_context *info);
size_t mcq_size(const struct vianic_open_context *info);
void *anonymous_pages(size_t pages);

/* The calls: each returns the status, or a negative errno. */
int open_context(struct context *ctx);
int map_context(struct context *ctx);
void unmap_context(struct context *ctx);
void close_context(struct context *ctx);
int object_call(int fd, unsigned long request, uint32_t *object);
int object_call_on(int fd, unsigned long request, uint32_t object);
int register_memory(int fd, const void *address, uint64_t length, uint32_t ptag, uint32_t access,
		    uint32_t *handle);
int deregister_memory(int fd, const void *address, uint32_t handle);
int set_memory_attributes(int fd, const void *address, uint32_t handle, uint32_t ptag,
			  uint32_t access);
int set_vi_attributes(int fd, struct vianic_set_vi_attributes call);
int create_vi_with(int fd, struct vianic_create_vi_call call, uint32_t *vi);
int create_vi(int fd, uint32_t *vi);
int connect_wait(int fd, const char *name, uint64_t timeout_ms, struct vianic_connect_wait *request);
int connect_answer(int fd, unsigned long request, uint32_t connection, uint32_t vi);
int connect_request(int fd, uint32_t vi, const char *name, uint64_t timeout_ms);
/* Both ends have the discriminator @name. */
int peer_request(int fd, uint32_t vi, const char *name, uint64_t timeout_ms);
int peer_wait(int fd, uint32_t vi, uint64_t timeout_ms, struct vianic_vi_attributes *attributes);
int wait_for_word(int fd, uint32_t word, uint32_t *seen, uint64_t timeout_ms);

/* Asks until somebody listens. */
int connect_when_ready(int fd, uint32_t vi, const char *name, uint64_t timeout_ms);
/* Connects @vi of @ctx with @peer_vi of @peer. */
int connect_pair(struct context *ctx, uint32_t vi, struct context *peer, uint32_t peer_vi,
		 const char *name);

void ring_doorbell(struct context *ctx);
void post(struct context *ctx, uint32_t vi, bool receive, struct descriptor *descriptor,
	  uint32_t handle);
/* Sleeps until a descriptor is done. */
int wait_for_descriptor(struct context *ctx, uint32_t vi, bool receive,
			struct descriptor *descriptor);

/* The subjects. */
void test_calls(void);
void test_mappings(void);
void test_objects(void);
void test_memory(void);
void test_limits(void);
void test_attributes(void);
void test_connections(void);
void test_peers(void);
void test_transfers(void);
void test_processes(void);
void test_unbind(void);
/* What the program does if it has been executed with a context's file open; its exit code. */
int after_exec(int fd);

#endif
