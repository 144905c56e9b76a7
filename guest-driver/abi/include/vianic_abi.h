/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0 OR MIT */
/*
 * The contract between the card, the Kernel Agent and VIPL.
 *
 * Generated from the Rust crate guest-driver/abi by its test `header`; do not
 * edit. The Rust sources say what everything means.
 */
#ifndef VIANIC_ABI_H
#define VIANIC_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>
#define VIANIC_ABI_VERSION 2
#define VIANIC_MAX_CONTEXTS 62
#define VIANIC_KERNEL_CONTEXT 0
#define VIANIC_MAX_VI 1024
#define VIANIC_MAX_CQ 1024
#define VIANIC_NO_CQ 0xffff
#define VIANIC_VIRTIO_ID 38
#define VIANIC_EVENT_QUEUE 0
#define VIANIC_ATTACH_QUEUE 1
#define VIANIC_QUEUE_COUNT 63
#define VIANIC_TOKEN_TABLE_LOG2 10
#define VIANIC_MCQ_LOG2 12
#define VIANIC_COMPLETION_RECEIVE 1
#define VIANIC_TOKEN_RECEIVE 1
#define VIANIC_CONFIG_MAGIC 0x43494e56
#define VIANIC_REGISTERS_MAGIC 0x313043494e414956ULL
#define VIANIC_SHM_REGISTERS 0
#define VIANIC_SHM_REQUESTS 1
#define VIANIC_REGISTERS_SIZE 0x200000
#define VIANIC_REQUESTS_SIZE 0x200000
#define VIANIC_COUNTERS_OFFSET 0x1000
#define VIANIC_NRA_SIZE 0x4000
#define VIANIC_NRA_WORDS 0x1000
#define VIANIC_NRA_MCQ 0
#define VIANIC_NRA_ERRORS 1
#define VIANIC_NRA_ANY 2
#define VIANIC_NRA_CQ 1024
#define VIANIC_NRA_VI 2048
#define VIANIC_MDL_OFFSET 0x100000
#define VIANIC_MDL_ENTRIES 0x1000
#define VIANIC_MRT_CHUNK_ENTRIES 0x2000
#define VIANIC_MRT_MAX_CHUNKS 16
#define VIANIC_LEAF_PAGES 512
#define VIANIC_HANDLE_INDEX_BITS 20
#define VIANIC_MAX_GENERATION 4094
#define VIANIC_DEFAULT_PTAG 0
#define VIANIC_ACCESS_RDMA_WRITE 1
#define VIANIC_ACCESS_RDMA_READ 2
#define VIANIC_VI_RDMA_WRITE 1
#define VIANIC_VI_RDMA_READ 2
#define VIANIC_INFINITE_MS 0xffffffffffffffffULL
#define VIANIC_MMAP_TOKEN_TABLE 0
#define VIANIC_MMAP_MCQ 0x10000000
#define VIANIC_MMAP_NRA 0x20000000
#define VIANIC_MMAP_DOORBELL 0x30000000
#define VIANIC_MMAP_REGISTERS 0x40000000
#define VIANIC_INLINE_PAGES 10
#define VIANIC_NIC_LIST_ENTRIES 64
#define VIANIC_NIC_ADDRESS_LEN 6
#define VIANIC_MAX_DISCRIMINATOR_LEN 28

/* Status */
#define VIANIC_STATUS_SUCCESS 0
#define VIANIC_STATUS_NOT_DONE 1
#define VIANIC_STATUS_INVALID_PARAMETER 2
#define VIANIC_STATUS_ERROR_RESOURCE 3
#define VIANIC_STATUS_TIMEOUT 4
#define VIANIC_STATUS_REJECT 5
#define VIANIC_STATUS_INVALID_RELIABILITY_LEVEL 6
#define VIANIC_STATUS_INVALID_MTU 7
#define VIANIC_STATUS_INVALID_QOS 8
#define VIANIC_STATUS_INVALID_PTAG 9
#define VIANIC_STATUS_INVALID_RDMAREAD 10
#define VIANIC_STATUS_INVALID_STATE 12
#define VIANIC_STATUS_NO_MATCH 14
#define VIANIC_STATUS_NOT_REACHABLE 15
#define VIANIC_STATUS_NOT_SUPPORTED 16
#define VIANIC_STATUS_CANCELLED 256
#define VIANIC_STATUS_NIC_FAILED 257

/* ErrorCode */
#define VIANIC_ERROR_CODE_POST_DESC 0
#define VIANIC_ERROR_CODE_CONN_LOST 1
#define VIANIC_ERROR_CODE_RECVQ_EMPTY 2
#define VIANIC_ERROR_CODE_VI_OVERRUN 3
#define VIANIC_ERROR_CODE_RDMAW_PROT 4
#define VIANIC_ERROR_CODE_RDMAW_DATA 5
#define VIANIC_ERROR_CODE_RDMAW_ABORT 6
#define VIANIC_ERROR_CODE_RDMAR_PROT 7
#define VIANIC_ERROR_CODE_COMP_PROT 8
#define VIANIC_ERROR_CODE_RDMA_TRANSPORT 9
#define VIANIC_ERROR_CODE_CATASTROPHIC 10

/* ReliabilityLevel */
#define VIANIC_RELIABILITY_LEVEL_UNRELIABLE 1
#define VIANIC_RELIABILITY_LEVEL_RELIABLE_DELIVERY 2
#define VIANIC_RELIABILITY_LEVEL_RELIABLE_RECEPTION 4

/* NicState */
#define VIANIC_NIC_STATE_ASLEEP 0
#define VIANIC_NIC_STATE_POLLING 1
#define VIANIC_NIC_STATE_CLOSED 2

/* TokenKind */
#define VIANIC_TOKEN_KIND_INLINE_DESCRIPTOR 1
#define VIANIC_TOKEN_KIND_INDIRECT_DESCRIPTOR 2
#define VIANIC_TOKEN_KIND_COMMAND 3

/* Opcode */
#define VIANIC_OPCODE_ADD_MRT_CHUNK 1
#define VIANIC_OPCODE_DRAIN_MDL 2
#define VIANIC_OPCODE_CREATE_CONTEXT 3
#define VIANIC_OPCODE_DESTROY_CONTEXT 4
#define VIANIC_OPCODE_CREATE_CQ 5
#define VIANIC_OPCODE_DESTROY_CQ 6
#define VIANIC_OPCODE_CREATE_VI 7
#define VIANIC_OPCODE_DESTROY_VI 8
#define VIANIC_OPCODE_LISTEN 9
#define VIANIC_OPCODE_CONNECT 10
#define VIANIC_OPCODE_CANCEL 11
#define VIANIC_OPCODE_ACCEPT 12
#define VIANIC_OPCODE_REJECT 13
#define VIANIC_OPCODE_DISCONNECT 14
#define VIANIC_OPCODE_SET_VI 15
#define VIANIC_OPCODE_CONNECT_PEER 16
#define VIANIC_OPCODE_DISCOVER 17

/* CompletionKind */
#define VIANIC_COMPLETION_KIND_DESCRIPTOR 1
#define VIANIC_COMPLETION_KIND_COMMAND 2
#define VIANIC_COMPLETION_KIND_ERROR 3

/* EventKind */
#define VIANIC_EVENT_KIND_NOTIFY 1
#define VIANIC_EVENT_KIND_CONTEXT_FAILED 2

/* LinkState */
#define VIANIC_LINK_STATE_DOWN 0
#define VIANIC_LINK_STATE_UP 1

struct vianic_config_space {
	__u32 magic;
	__u32 abi_version;
	__u32 contexts;
	__u32 reserved[13];
};

struct vianic_registers {
	__u64 magic;
	__u32 abi_version;
	__u32 link_state;
	__u8 nic_address[6];
	__u16 reliability_levels;
	__u16 rdma_read_levels;
	__u16 max_segments;
	__u32 max_contexts;
	__u32 max_vi;
	__u32 max_cq;
	__u32 max_descriptors;
	__u32 max_transfer_size;
	__u32 native_mtu;
	__u32 max_regions;
	__u32 max_discriminator_len;
	__u32 shadow_mrt_entries;
	__u32 mdl_entries;
	__u32 reserved[15];
	__u32 mdl_drained;
	__u32 reserved2[15];
};

struct vianic_counters {
	__u64 tokens_inline;
	__u64 tokens_indirect;
	__u64 tokens_command;
	__u64 tokens_refused;
	__u64 doorbells;
	__u64 fifo_high_water;
	__u64 polls;
	__u64 batches;
	__u64 batch_high_water;
	__u64 sleeps;
	__u64 shadow_hits;
	__u64 shadow_misses;
	__u64 shadow_evictions;
	__u64 page_table_reads;
	__u64 mdl_drained_idle;
	__u64 mdl_drained_validation;
	__u64 mdl_drained_command;
	__u64 mdl_drained_full;
	__u64 mdl_high_water;
	__u64 messages_sent;
	__u64 bytes_sent;
	__u64 messages_received;
	__u64 bytes_received;
	__u64 completions;
	__u64 completion_errors;
	__u64 mcq_stalls;
	__u64 notifications;
	__u64 async_errors;
	__u64 contexts_broken;
	__u64 connections;
	__u64 memory_added;
	__u64 memory_removed;
	__u64 batches_1;
	__u64 batches_2;
	__u64 batches_4;
	__u64 batches_8;
	__u64 batches_16;
	__u64 batches_32;
	__u64 batches_64;
	__u64 batches_128;
	__u64 batches_256;
	__u64 busy_ns;
	__u64 spaced_ns;
	__u64 asleep_ns;
};

struct vianic_attach_request {
	__u32 abi_version;
	__u8 token_table_log2;
	__u8 mcq_log2;
	__u16 reserved;
	__u64 token_table;
	__u64 mcq;
	__u64 mdl_insert;
};

struct vianic_attach_reply {
	__u32 status;
	__u32 abi_version;
};

struct vianic_token {
	__u32 sequence;
	__u16 vi;
	__u8 kind;
	__u8 flags;
	__u64 descriptor;
	__u64 body[6];
};

struct vianic_completion {
	__u32 sequence;
	__u16 cq;
	__u8 kind;
	__u8 flags;
	__u64 descriptor;
	__u32 status;
	__u32 length;
	__u16 vi;
	__u16 reserved;
	__u32 immediate;
};

struct vianic_event {
	__u16 kind;
	__u16 context;
	__u32 nra_word;
};

struct vianic_mrt_entry {
	__u32 handle;
	__u32 ptag;
	__u16 context;
	__u16 access;
	__u8 page_shift;
	__u8 reserved[3];
	__u64 virtual_address;
	__u64 length;
	__u64 page_count;
	__u64 page_directory;
	__u64 pages[10];
};

struct vianic_mrt_chunk {
	__u32 chunk;
	__u32 reserved;
	__u64 address;
	__u64 reserved2[4];
};

struct vianic_create_context {
	__u16 context;
	__u8 token_table_log2;
	__u8 mcq_log2;
	__u32 reserved;
	__u64 token_table;
	__u64 mcq;
	__u64 reserved2[3];
};

struct vianic_target {
	__u16 context;
	__u16 object;
	__u32 reserved[11];
};

struct vianic_vi_attributes {
	__u16 reliability_level;
	__u16 flags;
	__u32 max_transfer_size;
};

struct vianic_create_vi {
	__u16 context;
	__u16 vi;
	__u16 send_cq;
	__u16 receive_cq;
	__u32 ptag;
	struct vianic_vi_attributes attributes;
	__u32 reserved[7];
};

struct vianic_set_vi {
	__u16 context;
	__u16 vi;
	__u32 ptag;
	struct vianic_vi_attributes attributes;
	__u64 reserved[4];
};

struct vianic_connect {
	__u16 context;
	__u16 vi;
	__u32 reserved;
	__u64 block;
	__u64 reserved2[4];
};

struct vianic_cancel {
	__u64 tag;
	__u64 reserved[5];
};

struct vianic_answer {
	__u16 context;
	__u16 vi;
	__u32 connection;
	__u64 reserved[5];
};

struct vianic_net_address {
	__u16 host_len;
	__u16 discriminator_len;
	__u8 host[6];
	__u16 reserved;
	__u8 discriminator[28];
};

struct vianic_connect_block {
	struct vianic_net_address local;
	struct vianic_net_address remote;
	struct vianic_vi_attributes attributes;
	__u32 connection;
	__u32 reserved;
};

struct vianic_discover {
	__u32 first;
	__u32 reserved;
	__u64 list;
	__u64 reserved2[4];
};

struct vianic_nic_entry {
	__u8 address[6];
	__u16 reserved;
};

struct vianic_nic_list {
	__u32 total;
	__u32 count;
	struct vianic_nic_entry nics[64];
};

struct vianic_nic_info {
	__u32 status;
	__u32 reserved;
	struct vianic_registers registers;
	__u64 max_register_bytes;
};

struct vianic_open_context {
	__u32 abi_version;
	__u32 status;
	__u16 context;
	__u8 token_table_log2;
	__u8 mcq_log2;
	__u16 doorbell_offset;
	__u16 doorbell_value;
};

struct vianic_object_call {
	__u32 object;
	__u32 status;
};

struct vianic_register_memory {
	__u64 address;
	__u64 length;
	__u32 ptag;
	__u32 access;
	__u32 handle;
	__u32 status;
};

struct vianic_deregister_memory {
	__u64 address;
	__u32 handle;
	__u32 status;
};

struct vianic_create_vi_call {
	struct vianic_vi_attributes attributes;
	__u32 ptag;
	__u16 send_cq;
	__u16 receive_cq;
	__u32 vi;
	__u32 status;
};

struct vianic_set_memory_attributes {
	__u64 address;
	__u32 handle;
	__u32 ptag;
	__u32 access;
	__u32 status;
};

struct vianic_set_vi_attributes {
	__u32 vi;
	__u32 ptag;
	struct vianic_vi_attributes attributes;
	__u32 reserved;
	__u32 status;
};

struct vianic_connect_wait {
	struct vianic_net_address local;
	struct vianic_net_address remote;
	__u64 timeout_ms;
	struct vianic_vi_attributes attributes;
	__u32 connection;
	__u32 status;
};

struct vianic_connect_answer {
	__u32 connection;
	__u32 vi;
	__u32 reserved;
	__u32 status;
};

struct vianic_connect_request {
	struct vianic_net_address local;
	struct vianic_net_address remote;
	__u64 timeout_ms;
	__u32 vi;
	__u32 status;
	struct vianic_vi_attributes attributes;
};

struct vianic_connect_peer_wait {
	__u32 vi;
	__u32 status;
	__u64 timeout_ms;
	struct vianic_vi_attributes attributes;
};

struct vianic_discover_nics {
	__u32 first;
	__u32 status;
	struct vianic_nic_list list;
};

struct vianic_wait {
	__u32 nra_word;
	__u32 seen;
	__u64 timeout_ms;
	__u32 status;
	__u32 reserved;
};

/* Headers of the Token Table and of the MCQ: each word alone on a cache line. */
#define VIANIC_TOKEN_TABLE_LAST_INSERTED 0
#define VIANIC_TOKEN_TABLE_LAST_ACCEPTED 64
#define VIANIC_TOKEN_TABLE_NIC_STATE 128
#define VIANIC_TOKEN_TABLE_ENTRIES 256
#define VIANIC_MCQ_CONSUMED 0
#define VIANIC_MCQ_STALLED 64
#define VIANIC_MCQ_ENTRIES 256

/* ioctls of /dev/vianicN */
#define VIANIC_IOC_QUERY_NIC _IOWR(0xb7, 1, struct vianic_nic_info)
#define VIANIC_IOC_OPEN_CONTEXT _IOWR(0xb7, 2, struct vianic_open_context)
#define VIANIC_IOC_CREATE_PTAG _IOWR(0xb7, 3, struct vianic_object_call)
#define VIANIC_IOC_DESTROY_PTAG _IOWR(0xb7, 4, struct vianic_object_call)
#define VIANIC_IOC_REGISTER_MEMORY _IOWR(0xb7, 5, struct vianic_register_memory)
#define VIANIC_IOC_DEREGISTER_MEMORY _IOWR(0xb7, 6, struct vianic_deregister_memory)
#define VIANIC_IOC_CREATE_CQ _IOWR(0xb7, 7, struct vianic_object_call)
#define VIANIC_IOC_DESTROY_CQ _IOWR(0xb7, 8, struct vianic_object_call)
#define VIANIC_IOC_CREATE_VI _IOWR(0xb7, 9, struct vianic_create_vi_call)
#define VIANIC_IOC_DESTROY_VI _IOWR(0xb7, 10, struct vianic_object_call)
#define VIANIC_IOC_CONNECT_WAIT _IOWR(0xb7, 11, struct vianic_connect_wait)
#define VIANIC_IOC_CONNECT_ACCEPT _IOWR(0xb7, 12, struct vianic_connect_answer)
#define VIANIC_IOC_CONNECT_REJECT _IOWR(0xb7, 13, struct vianic_connect_answer)
#define VIANIC_IOC_CONNECT_REQUEST _IOWR(0xb7, 14, struct vianic_connect_request)
#define VIANIC_IOC_DISCONNECT _IOWR(0xb7, 15, struct vianic_object_call)
#define VIANIC_IOC_WAIT _IOWR(0xb7, 16, struct vianic_wait)
#define VIANIC_IOC_SHUT_DOWN _IOWR(0xb7, 17, struct vianic_object_call)
#define VIANIC_IOC_SET_MEMORY_ATTRIBUTES _IOWR(0xb7, 18, struct vianic_set_memory_attributes)
#define VIANIC_IOC_SET_VI_ATTRIBUTES _IOWR(0xb7, 19, struct vianic_set_vi_attributes)
#define VIANIC_IOC_CONNECT_PEER_REQUEST _IOWR(0xb7, 20, struct vianic_connect_request)
#define VIANIC_IOC_CONNECT_PEER_WAIT _IOWR(0xb7, 21, struct vianic_connect_peer_wait)
#define VIANIC_IOC_DISCOVER _IOWR(0xb7, 22, struct vianic_discover_nics)

#endif /* VIANIC_ABI_H */
