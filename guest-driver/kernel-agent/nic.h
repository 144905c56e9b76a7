/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A card as the Kernel Agent sees it, whatever bus it sits on.
 *
 * Functions that answer a process return a VIANIC_STATUS_* (zero or positive),
 * or a negative errno when the call itself fails.
 *
 * Locks, in the order in which they are taken:
 *
 *	file->lock	(mutex)		the file's way to its context
 *	nic->stop_lock	(mutex)		one start or stop of the card at a time
 *	ctx->lock	(mutex)		the context's objects, ctx->ended
 *	mrt->lock	(mutex)		the MRT, the MDL, the list of retired regions
 *	nic->gate	(rwsem)		nic->state; read: touch the card, write: change the state
 *	nic->post_lock	(mutex)		the posting end of context 0's Token Table
 *	nic->files_lock	(mutex)		nic->files
 *	nic->contexts_lock (spinlock)	nic->contexts, ctx->fired; also taken in interrupts
 *	nic->commands_lock (spinlock)	nic->commands
 *
 * mmap_lock is taken inside ctx->lock (memory is pinned, user memory copied) and
 * outside nic->gate (page faults), so nothing that may fault runs under the gate.
 * stop_lock and ctx->lock never meet in one thread: a stop takes no object lock
 * but mrt->lock, and whoever finds the card dead under ctx->lock leaves the stop
 * to nic->fail_work.
 */
#ifndef VIANIC_NIC_H
#define VIANIC_NIC_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/hashtable.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vianic_abi.h"

#if !defined(__LITTLE_ENDIAN) || BITS_PER_LONG != 64
#error "vianic's shared structures are defined for little-endian 64-bit machines"
#endif
static_assert(PAGE_SHIFT == 12);

struct vianic_nic;
struct vianic_context;
struct vianic_file;
struct vianic_attempt;

/* --- The bus --- */

/* Where a context's doorbell is, for mapping it into a process. */
struct vianic_doorbell {
	unsigned long pfn;
	u16 offset;
	u16 value;
};

struct vianic_bus {
	/* Rings the doorbell of the Kernel Agent's context. Under the gate. */
	void (*ring)(struct vianic_nic *nic);
	/* Finds the doorbell page of a context; false if it has none of its own. Under the gate. */
	bool (*doorbell)(struct vianic_nic *nic, u16 context, struct vianic_doorbell *doorbell);
	/* When it returns the card touches no memory any more and reports no event. May sleep. */
	void (*reset)(struct vianic_nic *nic);
};

/* NIC memory, mapped by the bus for as long as the card is bound. */
struct vianic_nic_memory {
	const struct vianic_registers *registers;
	phys_addr_t registers_phys;
	void *requests;
	phys_addr_t requests_phys;
};

/* --- The card --- */

enum vianic_state {
	VIANIC_DOWN,	/* not attached, or failed: nothing touches the card */
	VIANIC_LIVE,
	VIANIC_CLOSING,	/* commands still work, but no new call begins */
};

struct vianic_mrt {
	struct mutex lock;
	/* The card knows the table and the list. */
	bool online;
	/* Counts resets: a region of another epoch is unknown to the card. */
	u32 epoch;
	struct vianic_mrt_part *parts[VIANIC_MRT_MAX_CHUNKS];
	u32 part_count;
	/* Free indices, the longest unused first. */
	u32 first_free, last_free;
	/* MDL_Insert, and the copy of it that the card reads, in a page of its own. */
	u32 inserted;
	u32 *mdl_insert;
	/* Regions in the MDL that the card has not let go of yet, oldest first. */
	struct list_head retired;
	struct delayed_work drain;
};

struct vianic_nic {
	struct kref kref;
	struct device *dev;
	const struct vianic_bus *bus;
	void *bus_private;
	/* N of /dev/vianicN, or negative. */
	int id;
	char name[24];
	struct miscdevice misc;
	struct notifier_block reboot;

	struct mutex stop_lock;
	struct rw_semaphore gate;
	enum vianic_state state;
	struct work_struct fail_work;

	/* Valid while the card is bound; used under the gate or before a stop has returned. */
	struct vianic_nic_memory memory;
	/* The card's limits as it said at the start, made safe. */
	struct vianic_registers limits;

	/* Context 0. */
	void *token_table;
	void *mcq;
	struct mutex post_lock;
	u32 inserted;
	u32 consumed;	/* reap_work only */
	struct work_struct reap_work;
	wait_queue_head_t reaped;
	spinlock_t commands_lock;
	u64 last_tag;
	DECLARE_HASHTABLE(commands, 6);

	/* Contexts of processes. */
	spinlock_t contexts_lock;
	struct vianic_context *contexts[VIANIC_MAX_CONTEXTS];
	DECLARE_BITMAP(context_numbers, VIANIC_MAX_CONTEXTS);
	unsigned int last_context;
	struct mutex files_lock;
	struct list_head files;
	/* What mappings of NIC memory show once the card is gone. */
	void *blank_registers;

	struct vianic_mrt mrt;

	/* Statistics. */
	atomic_long_t pinned_pages;
	atomic_long_t page_table_bytes;
	atomic_t regions;
	atomic64_t registrations;
	atomic64_t mdl_full;
	atomic_t pending_unpins;
	atomic_t context_count;
	atomic64_t interrupts;
	atomic64_t events;
	atomic64_t ioctls;
	atomic64_t command_count;
};

extern struct workqueue_struct *vianic_wq;
/* Ends attempts whose time is over: waits for what vianic_wq does. */
extern struct workqueue_struct *vianic_peer_wq;
/* Seconds that the card may take for a command. */
extern unsigned int vianic_command_timeout;
/* Deregistration waits for the card: to be compared with. */
extern bool vianic_eager_deregistration;

/* nic.c */
struct vianic_nic *vianic_nic_alloc(struct device *dev, const struct vianic_bus *bus,
				    void *bus_private);
void vianic_nic_get(struct vianic_nic *nic);
void vianic_nic_put(struct vianic_nic *nic);
void vianic_nic_attach_request(struct vianic_nic *nic, struct vianic_attach_request *request);
int vianic_nic_start(struct vianic_nic *nic, const struct vianic_nic_memory *memory);
int vianic_nic_publish(struct vianic_nic *nic);
void vianic_nic_close(struct vianic_nic *nic);
void vianic_nic_remove(struct vianic_nic *nic);
void vianic_nic_fail(struct vianic_nic *nic, const char *reason);
void vianic_nic_settle(struct vianic_nic *nic);
void vianic_nic_event(struct vianic_nic *nic, const struct vianic_event *event);
void *vianic_alloc_table(size_t size);
void vianic_free_table(void *table, size_t size);

static inline bool vianic_nic_is_live(struct vianic_nic *nic)
{
	return READ_ONCE(nic->state) == VIANIC_LIVE;
}

static inline size_t vianic_token_table_size(u8 log2)
{
	return PAGE_ALIGN(VIANIC_TOKEN_TABLE_ENTRIES + (sizeof(struct vianic_token) << log2));
}

static inline size_t vianic_mcq_size(u8 log2)
{
	return PAGE_ALIGN(VIANIC_MCQ_ENTRIES + (sizeof(struct vianic_completion) << log2));
}

/* A word of a Token Table's or an MCQ's header. */
static inline u32 *vianic_word(void *table, size_t offset)
{
	return table + offset;
}

static inline bool vianic_table_is_closed(void *token_table)
{
	u32 *state = vianic_word(token_table, VIANIC_TOKEN_TABLE_NIC_STATE);

	return READ_ONCE(*state) == VIANIC_NIC_STATE_CLOSED;
}

/* --- Commands --- */

struct vianic_command {
	/* In nic->commands until it is completed: both happen under commands_lock. */
	struct hlist_node node;
	u64 tag;
	u32 status;
	/* Whose wait for a peer it is: SHUT_DOWN disturbs it, and ctx->peers hear of its end. */
	struct vianic_context *waits;
	/* Wakes the waiter, who then asks vianic_command_is_done(). */
	struct completion done;
};

#define VIANIC_COMMAND_BODY sizeof_field(struct vianic_token, body)

/* command.c */
int vianic_command(struct vianic_nic *nic, struct vianic_context *ctx, u16 opcode,
		   const void *body);
int vianic_command_post(struct vianic_nic *nic, struct vianic_context *ctx,
			struct vianic_command *command, u16 opcode, const void *body);
bool vianic_command_is_done(struct vianic_nic *nic, struct vianic_command *command);
int vianic_command_wait(struct vianic_nic *nic, struct vianic_command *command);
void vianic_commands_disturb(struct vianic_nic *nic, struct vianic_context *ctx);
void vianic_commands_start(struct vianic_nic *nic);
void vianic_commands_fail(struct vianic_nic *nic);
void vianic_reap(struct work_struct *work);

/* --- Contexts --- */

#define VIANIC_WAIT_BUCKETS_LOG2 6

struct vianic_context {
	struct kref kref;
	struct vianic_nic *nic;
	/* The process that pays for the pinned memory; only it may register. */
	struct mm_struct *mm;
	u16 number;
	/* The card broke it off: a CONTEXT_FAILED event. */
	bool failed;
	/* SHUT_DOWN: waits end, and new ones end at once. */
	bool shut_down;
	/* The card was reset, the context is unknown to it. Set before the card can start again. */
	bool dead;
	/* The card does not know it: not made yet, or destroyed. Under lock. */
	bool ended;

	void *token_table;
	void *mcq;
	/* What mappings of NRA and doorbell show once the card is gone. */
	void *blank;
	struct vianic_doorbell doorbell;

	struct mutex lock;
	struct xarray ptags;	/* struct vianic_object */
	struct xarray cqs;	/* struct vianic_object */
	struct xarray vis;	/* struct vianic_vi */
	struct xarray regions;	/* struct vianic_region, by MRT index */

	/* Those who wait for a partner: woken when a command with waits set completes. */
	wait_queue_head_t peers;

	/* How often each NRA word has fired. */
	u32 fired[VIANIC_NRA_WORDS];
	wait_queue_head_t waiters[1 << VIANIC_WAIT_BUCKETS_LOG2];
};

/* context.c */
int vianic_context_open(struct vianic_nic *nic, struct vianic_context **result);
void vianic_context_put(struct vianic_context *ctx);
int vianic_context_shut_down(struct vianic_context *ctx);
void vianic_context_release(struct vianic_context *ctx);
void vianic_contexts_end(struct vianic_nic *nic);
void vianic_contexts_die(struct vianic_nic *nic);

/* wait.c */
int vianic_wait(struct vianic_context *ctx, struct vianic_wait *call);
void vianic_wait_init(struct vianic_context *ctx);
void vianic_wait_fire(struct vianic_context *ctx, u32 nra_word);
void vianic_wait_wake_all(struct vianic_context *ctx);
long vianic_timeout_jiffies(u64 timeout_ms);

/* --- Memory --- */

struct vianic_region {
	struct list_head node;	/* mrt->retired, or a list of what to free */
	struct vianic_nic *nic;
	struct mm_struct *mm;
	u32 handle;
	u32 epoch;
	/* MDL_Insert after this region's handle was put in. */
	u32 mdl_position;
	u32 ptag;
	u16 context;
	u16 access;
	u64 address;
	u64 length;

	/* Pinned pages; those that count against the limit of mm. */
	struct page **pages;
	unsigned long page_count;
	unsigned long accounted;
	/* What the card reads: addresses of larger pages where the memory has them. */
	u8 page_shift;
	u64 card_pages;
	u64 inline_pages[VIANIC_INLINE_PAGES];
	u64 *directory;
	unsigned long page_table_bytes;
	unsigned long leaf_count;
	u64 **leaves;
};

static inline u32 vianic_handle_index(u32 handle)
{
	return handle & (BIT(VIANIC_HANDLE_INDEX_BITS) - 1);
}

/* memory.c */
int vianic_memory_register(struct vianic_context *ctx, struct vianic_register_memory *call);
int vianic_memory_deregister(struct vianic_context *ctx,
			     const struct vianic_deregister_memory *call);
int vianic_memory_set_attributes(struct vianic_context *ctx,
				 const struct vianic_set_memory_attributes *call);
void vianic_memory_release(struct vianic_context *ctx);
u64 vianic_memory_limit(void);
void vianic_regions_free(struct list_head *regions);

/* mrt.c */
int vianic_mrt_init(struct vianic_nic *nic);
void vianic_mrt_destroy(struct vianic_nic *nic);
void vianic_mrt_start(struct vianic_nic *nic);
void vianic_mrt_reset(struct vianic_nic *nic);
int vianic_mrt_insert(struct vianic_context *ctx, struct vianic_region *region);
int vianic_mrt_change(struct vianic_region *region, u32 ptag, u16 access);
void vianic_mrt_retire(struct vianic_region *region);
void vianic_mrt_drain(struct vianic_nic *nic);

/* --- VIs, completion queues, protection tags --- */

struct vianic_object {
	u32 users;
};

struct vianic_vi {
	u32 ptag;
	u16 send_cq;
	u16 receive_cq;
	/* The attempt to connect with a peer, until somebody is told what became of it. */
	struct vianic_attempt *attempt;
};

/* vi.c */
int vianic_ptag_create(struct vianic_context *ctx, u32 *ptag);
int vianic_ptag_destroy(struct vianic_context *ctx, u32 ptag);
void vianic_ptag_replace(struct vianic_context *ctx, u32 *ptag, u32 other);
bool vianic_ptag_exists(struct vianic_context *ctx, u32 ptag);
bool vianic_ptag_get(struct vianic_context *ctx, u32 ptag);
void vianic_ptag_put(struct vianic_context *ctx, u32 ptag);
int vianic_cq_create(struct vianic_context *ctx, u32 *cq);
int vianic_cq_destroy(struct vianic_context *ctx, u32 cq);
int vianic_vi_create(struct vianic_context *ctx, struct vianic_create_vi_call *call);
int vianic_vi_set_attributes(struct vianic_context *ctx,
			     const struct vianic_set_vi_attributes *call);
int vianic_vi_destroy(struct vianic_context *ctx, u32 vi);
bool vianic_vi_exists(struct vianic_context *ctx, u32 vi);
void vianic_objects_release(struct vianic_context *ctx);

/* connect.c */
bool vianic_address_checked(struct vianic_net_address *address);
int vianic_connect_wait(struct vianic_context *ctx, struct vianic_connect_wait *call);
int vianic_connect_accept(struct vianic_context *ctx, const struct vianic_connect_answer *call);
int vianic_connect_reject(struct vianic_context *ctx, u32 connection);
int vianic_connect_request(struct vianic_context *ctx, struct vianic_connect_request *call);
int vianic_disconnect(struct vianic_context *ctx, u32 vi);

/* peer.c */
int vianic_connect_peer_request(struct vianic_context *ctx, struct vianic_connect_request *call);
int vianic_connect_peer_wait(struct vianic_context *ctx, struct vianic_connect_peer_wait *call);
void vianic_peer_forget(struct vianic_context *ctx, u32 vi);
void vianic_peer_release(struct vianic_vi *vi);

/* discover.c */
int vianic_discover(struct vianic_context *ctx, struct vianic_discover_nics *call);

/* --- Files --- */

struct vianic_file {
	struct list_head node;
	struct vianic_nic *nic;
	struct file *filp;
	struct mutex lock;
	/* Set once by OPEN_CONTEXT; lives as long as the file. */
	struct vianic_context *ctx;
};

/* file.c */
extern const struct file_operations vianic_fops;

/* mmap.c */
int vianic_mmap(struct file *filp, struct vm_area_struct *vma);
void vianic_mmap_zap(struct vianic_nic *nic);

/* sysfs.c */
extern const struct attribute_group *vianic_groups[];

/* virtio.c */
int vianic_virtio_init(void);
void vianic_virtio_exit(void);

#endif /* VIANIC_NIC_H */
