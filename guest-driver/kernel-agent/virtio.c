// SPDX-License-Identifier: GPL-2.0
/*
 * The card as a virtio device; nothing else in this driver knows virtio.
 *
 * Queue 0 carries events to the driver. Queue 1 + c is the doorbell of context c: its notify
 * address is what is rung, no buffer is ever put on it, but for the attach request on queue 1.
 */

#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "nic.h"

/* Seconds that a card may take to answer the attach request. */
#define VIANIC_ATTACH_SECONDS 30

struct vianic_attach {
	struct vianic_attach_request request;
	struct vianic_attach_reply reply;
};

struct vianic_virtio {
	struct virtio_device *vdev;
	struct vianic_nic *nic;
	unsigned int queue_count;
	bool has_queues;
	struct virtqueue *queues[VIANIC_QUEUE_COUNT];
	/* Each doorbell has a page of its own and may be mapped. */
	bool separate_doorbells;
	/* The event queue and its buffers: taken in the interrupt and in events_work. */
	spinlock_t events_lock;
	struct vianic_event *events;
	struct work_struct events_work;

	struct vianic_attach *attach;
	struct completion attached;

	struct vianic_nic_memory memory;
};

static struct virtqueue *vianic_doorbell_queue(struct vianic_virtio *card, u16 context)
{
	return card->queues[VIANIC_ATTACH_QUEUE + context];
}

/* --- What the card's other files call --- */

static void vianic_virtio_ring(struct vianic_nic *nic)
{
	struct vianic_virtio *card = nic->bus_private;
	struct virtqueue *queue = vianic_doorbell_queue(card, VIANIC_KERNEL_CONTEXT);

	iowrite16(queue->index, (void __iomem *)queue->priv);
}

static unsigned long vianic_virtio_notify_pfn(struct virtqueue *queue)
{
	return vmalloc_to_pfn(queue->priv);
}

static bool vianic_virtio_doorbell(struct vianic_nic *nic, u16 context,
				   struct vianic_doorbell *doorbell)
{
	struct vianic_virtio *card = nic->bus_private;
	struct virtqueue *queue = vianic_doorbell_queue(card, context);

	if (!card->separate_doorbells)
		return false;
	doorbell->pfn = vianic_virtio_notify_pfn(queue);
	doorbell->offset = offset_in_page(queue->priv);
	doorbell->value = queue->index;
	return true;
}

static void vianic_virtio_reset(struct vianic_nic *nic)
{
	struct vianic_virtio *card = nic->bus_private;

	virtio_reset_device(card->vdev);
	cancel_work_sync(&card->events_work);
}

static const struct vianic_bus vianic_virtio_bus = {
	.ring = vianic_virtio_ring,
	.doorbell = vianic_virtio_doorbell,
	.reset = vianic_virtio_reset,
};

/* --- Events --- */

static int vianic_virtio_offer(struct vianic_virtio *card, struct vianic_event *event)
{
	struct scatterlist sg;

	sg_init_one(&sg, event, sizeof(*event));
	return virtqueue_add_inbuf(card->queues[VIANIC_EVENT_QUEUE], &sg, 1, event, GFP_ATOMIC);
}

/* Takes at most one queue full of events; true: there may be more, the interrupt is still off. */
static bool vianic_virtio_take_events(struct vianic_virtio *card)
{
	struct virtqueue *queue = card->queues[VIANIC_EVENT_QUEUE];
	unsigned int budget = virtqueue_get_vring_size(queue);
	bool more = true;
	unsigned long flags;

	spin_lock_irqsave(&card->events_lock, flags);
	virtqueue_disable_cb(queue);
	while (budget) {
		struct vianic_event *buffer, event;
		unsigned int length;

		buffer = virtqueue_get_buf(queue, &length);
		if (!buffer) {
			more = !virtqueue_enable_cb(queue);
			if (!more)
				break;
			virtqueue_disable_cb(queue);
			continue;
		}
		budget--;
		/* One copy: what is checked is what is used. */
		event = *buffer;
		if (vianic_virtio_offer(card, buffer))
			dev_warn_ratelimited(&card->vdev->dev, "lost an event buffer\n");
		if (length == sizeof(event))
			vianic_nic_event(card->nic, &event);
		else
			dev_warn_ratelimited(&card->vdev->dev, "event of %u bytes\n", length);
	}
	virtqueue_kick(queue);
	spin_unlock_irqrestore(&card->events_lock, flags);
	return more;
}

static void vianic_virtio_events_work(struct work_struct *work)
{
	struct vianic_virtio *card = container_of(work, struct vianic_virtio, events_work);

	while (vianic_virtio_take_events(card))
		cond_resched();
}

/* A storm of events is left to a work, so that the interrupt does not keep a processor. */
static void vianic_virtio_on_events(struct virtqueue *queue)
{
	struct vianic_virtio *card = queue->vdev->priv;

	atomic64_inc(&card->nic->interrupts);
	if (vianic_virtio_take_events(card))
		queue_work(vianic_wq, &card->events_work);
}

static int vianic_virtio_fill_events(struct vianic_virtio *card)
{
	struct virtqueue *queue = card->queues[VIANIC_EVENT_QUEUE];
	unsigned int i, count = virtqueue_get_vring_size(queue);
	unsigned long flags;
	int err = 0;

	card->events = kcalloc(count, sizeof(*card->events), GFP_KERNEL);
	if (!card->events)
		return -ENOMEM;
	spin_lock_irqsave(&card->events_lock, flags);
	for (i = 0; i < count && !err; i++)
		err = vianic_virtio_offer(card, &card->events[i]);
	spin_unlock_irqrestore(&card->events_lock, flags);
	virtqueue_kick(queue);
	return err;
}

/* --- Attaching --- */

static void vianic_virtio_on_attached(struct virtqueue *queue)
{
	struct vianic_virtio *card = queue->vdev->priv;
	unsigned int length;

	if (virtqueue_get_buf(queue, &length))
		complete(&card->attached);
}

static bool vianic_virtio_wait_attached(struct vianic_virtio *card)
{
	int slice;

	/* In slices: a jump of the clock (a paused machine) costs one of them. */
	for (slice = 0; slice < VIANIC_ATTACH_SECONDS; slice++) {
		if (wait_for_completion_timeout(&card->attached, HZ))
			return true;
	}
	return false;
}

static int vianic_virtio_attach(struct vianic_virtio *card)
{
	struct virtqueue *queue = card->queues[VIANIC_ATTACH_QUEUE];
	struct device *dev = &card->vdev->dev;
	struct scatterlist out, in, *sgs[] = { &out, &in };
	struct vianic_attach_reply reply;
	int err;

	card->attach = kzalloc(sizeof(*card->attach), GFP_KERNEL);
	if (!card->attach)
		return -ENOMEM;
	vianic_nic_attach_request(card->nic, &card->attach->request);
	reinit_completion(&card->attached);
	sg_init_one(&out, &card->attach->request, sizeof(card->attach->request));
	sg_init_one(&in, &card->attach->reply, sizeof(card->attach->reply));
	err = virtqueue_add_sgs(queue, sgs, 1, 1, card->attach, GFP_KERNEL);
	if (err)
		return err;
	virtqueue_kick(queue);
	if (!vianic_virtio_wait_attached(card)) {
		dev_err(dev, "the card did not answer the attach request within %d s\n",
			VIANIC_ATTACH_SECONDS);
		return -ETIMEDOUT;
	}
	reply = card->attach->reply;
	if (reply.status == VIANIC_STATUS_NOT_SUPPORTED) {
		dev_err(dev, "the card has ABI version %u, this driver has version %u\n",
			reply.abi_version, VIANIC_ABI_VERSION);
		return -ENODEV;
	}
	if (reply.status) {
		dev_err(dev, "the card refused the attach request with status %u\n", reply.status);
		return -EIO;
	}
	return 0;
}

/* --- Queues and NIC memory --- */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static int vianic_virtio_request_queues(struct vianic_virtio *card)
{
	struct virtqueue_info *info;
	unsigned int i;
	int err;

	info = kcalloc(card->queue_count, sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	for (i = 0; i < card->queue_count; i++)
		info[i].name = "doorbell";
	info[VIANIC_EVENT_QUEUE].name = "events";
	info[VIANIC_EVENT_QUEUE].callback = vianic_virtio_on_events;
	info[VIANIC_ATTACH_QUEUE].callback = vianic_virtio_on_attached;
	err = virtio_find_vqs(card->vdev, card->queue_count, card->queues, info, NULL);
	kfree(info);
	return err;
}
#else
static int vianic_virtio_request_queues(struct vianic_virtio *card)
{
	vq_callback_t **callbacks;
	const char **names;
	unsigned int i;
	int err = -ENOMEM;

	callbacks = kcalloc(card->queue_count, sizeof(*callbacks), GFP_KERNEL);
	names = kcalloc(card->queue_count, sizeof(*names), GFP_KERNEL);
	if (callbacks && names) {
		for (i = 0; i < card->queue_count; i++)
			names[i] = "doorbell";
		names[VIANIC_EVENT_QUEUE] = "events";
		callbacks[VIANIC_EVENT_QUEUE] = vianic_virtio_on_events;
		callbacks[VIANIC_ATTACH_QUEUE] = vianic_virtio_on_attached;
		err = virtio_find_vqs(card->vdev, card->queue_count, card->queues, callbacks,
				      names, NULL);
	}
	kfree(callbacks);
	kfree(names);
	return err;
}
#endif

static void vianic_virtio_check_doorbells(struct vianic_virtio *card)
{
	unsigned int i, j;

	card->separate_doorbells = false;
	for (i = 0; i < card->queue_count; i++) {
		if (!is_vmalloc_addr(card->queues[i]->priv))
			goto shared;
		for (j = 0; j < i; j++) {
			if (vianic_virtio_notify_pfn(card->queues[i]) ==
			    vianic_virtio_notify_pfn(card->queues[j]))
				goto shared;
		}
	}
	card->separate_doorbells = true;
	return;
shared:
	dev_err(&card->vdev->dev,
		"doorbells share a page, so processes get no contexts: give the device page-per-vq=on\n");
}

static int vianic_virtio_find_queues(struct vianic_virtio *card)
{
	int err = vianic_virtio_request_queues(card);

	if (err) {
		dev_err(&card->vdev->dev, "cannot set up %u queues: %d\n", card->queue_count, err);
		return err;
	}
	card->has_queues = true;
	vianic_virtio_check_doorbells(card);
	return 0;
}

/* Undoes what a start has done. The device is reset. */
static void vianic_virtio_free_queues(struct vianic_virtio *card)
{
	if (card->has_queues) {
		while (virtqueue_detach_unused_buf(card->queues[VIANIC_EVENT_QUEUE]))
			;
		while (virtqueue_detach_unused_buf(card->queues[VIANIC_ATTACH_QUEUE]))
			;
		card->vdev->config->del_vqs(card->vdev);
	}
	card->has_queues = false;
	kfree(card->events);
	card->events = NULL;
	kfree(card->attach);
	card->attach = NULL;
}

static void *vianic_virtio_map(struct vianic_virtio *card, u8 id, u64 size, phys_addr_t *phys)
{
	struct virtio_shm_region region;
	void *memory;

	if (!virtio_get_shm_region(card->vdev, &region, id) || region.len < size) {
		dev_err(&card->vdev->dev, "no shared memory region %u of %llu bytes\n", id, size);
		return NULL;
	}
	if (!PAGE_ALIGNED(region.addr)) {
		dev_err(&card->vdev->dev, "shared memory region %u is not page-aligned\n", id);
		return NULL;
	}
	memory = memremap(region.addr, size, MEMREMAP_WB);
	if (!memory)
		dev_err(&card->vdev->dev, "cannot map shared memory region %u\n", id);
	*phys = region.addr;
	return memory;
}

static void vianic_virtio_unmap_memory(struct vianic_virtio *card)
{
	if (card->memory.registers)
		memunmap((void *)card->memory.registers);
	if (card->memory.requests)
		memunmap(card->memory.requests);
	card->memory = (struct vianic_nic_memory) {};
}

static int vianic_virtio_map_memory(struct vianic_virtio *card)
{
	struct vianic_nic_memory *memory = &card->memory;

	memory->registers = vianic_virtio_map(card, VIANIC_SHM_REGISTERS, VIANIC_REGISTERS_SIZE,
					      &memory->registers_phys);
	memory->requests = vianic_virtio_map(card, VIANIC_SHM_REQUESTS, VIANIC_REQUESTS_SIZE,
					     &memory->requests_phys);
	if (memory->registers && memory->requests)
		return 0;
	vianic_virtio_unmap_memory(card);
	return -ENODEV;
}

/* --- The life of the device --- */

/* From a reset device to a card in service. */
static int vianic_virtio_start(struct vianic_virtio *card)
{
	int err = vianic_virtio_find_queues(card);

	if (err)
		return err;
	virtio_device_ready(card->vdev);
	err = vianic_virtio_fill_events(card);
	if (!err)
		err = vianic_virtio_attach(card);
	if (!err)
		err = vianic_nic_start(card->nic, &card->memory);
	if (err) {
		virtio_reset_device(card->vdev);
		cancel_work_sync(&card->events_work);
		vianic_virtio_free_queues(card);
	}
	return err;
}

static int vianic_virtio_check_config(struct vianic_virtio *card)
{
	struct virtio_device *vdev = card->vdev;
	u32 magic, version, contexts;

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "not a virtio 1 device\n");
		return -ENODEV;
	}
	magic = virtio_cread32(vdev, offsetof(struct vianic_config_space, magic));
	version = virtio_cread32(vdev, offsetof(struct vianic_config_space, abi_version));
	contexts = virtio_cread32(vdev, offsetof(struct vianic_config_space, contexts));
	if (magic != VIANIC_CONFIG_MAGIC) {
		dev_err(&vdev->dev, "not a vianic card (magic %#x)\n", magic);
		return -ENODEV;
	}
	if (version != VIANIC_ABI_VERSION) {
		dev_err(&vdev->dev,
			"the card has ABI version %u, this driver has version %u: update the older of the two\n",
			version, VIANIC_ABI_VERSION);
		return -ENODEV;
	}
	if (!contexts || contexts > VIANIC_MAX_CONTEXTS) {
		dev_err(&vdev->dev, "a card with %u contexts, expected 1 to %u\n", contexts,
			VIANIC_MAX_CONTEXTS);
		return -ENODEV;
	}
	card->queue_count = VIANIC_ATTACH_QUEUE + contexts;
	return 0;
}

static int vianic_virtio_probe(struct virtio_device *vdev)
{
	struct vianic_virtio *card;
	int err;

	card = kzalloc(sizeof(*card), GFP_KERNEL);
	if (!card)
		return -ENOMEM;
	card->vdev = vdev;
	spin_lock_init(&card->events_lock);
	INIT_WORK(&card->events_work, vianic_virtio_events_work);
	init_completion(&card->attached);
	vdev->priv = card;

	err = vianic_virtio_check_config(card);
	if (err)
		goto free_card;
	err = vianic_virtio_map_memory(card);
	if (err)
		goto free_card;
	err = -ENOMEM;
	card->nic = vianic_nic_alloc(&vdev->dev, &vianic_virtio_bus, card);
	if (!card->nic)
		goto unmap;
	err = vianic_virtio_start(card);
	if (err)
		goto remove_nic;
	err = vianic_nic_publish(card->nic);
	if (err)
		goto stop;
	dev_info(&vdev->dev, "%s: address %pM, %u contexts\n", card->nic->name,
		 card->nic->limits.nic_address, card->nic->limits.max_contexts);
	return 0;

stop:
	vianic_nic_close(card->nic);
	vianic_virtio_free_queues(card);
remove_nic:
	vianic_nic_remove(card->nic);
unmap:
	vianic_virtio_unmap_memory(card);
free_card:
	vdev->priv = NULL;
	kfree(card);
	return err;
}

static void vianic_virtio_remove(struct virtio_device *vdev)
{
	struct vianic_virtio *card = vdev->priv;

	vianic_nic_remove(card->nic);
	/* Also if the card had failed, or was never started again after a suspend. */
	virtio_reset_device(vdev);
	cancel_work_sync(&card->events_work);
	vianic_virtio_free_queues(card);
	vianic_virtio_unmap_memory(card);
	vdev->priv = NULL;
	kfree(card);
}

#ifdef CONFIG_PM_SLEEP
static int vianic_virtio_freeze(struct virtio_device *vdev)
{
	struct vianic_virtio *card = vdev->priv;

	/* Contexts do not survive: their processes find the card gone and open it anew. */
	vianic_nic_close(card->nic);
	virtio_reset_device(vdev);
	vianic_virtio_free_queues(card);
	return 0;
}

static int vianic_virtio_restore(struct virtio_device *vdev)
{
	return vianic_virtio_start(vdev->priv);
}
#endif

static const struct virtio_device_id vianic_virtio_ids[] = {
	{ VIANIC_VIRTIO_ID, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, vianic_virtio_ids);

static struct virtio_driver vianic_virtio_driver = {
	.driver.name = "vianic",
	.driver.owner = THIS_MODULE,
	.id_table = vianic_virtio_ids,
	.probe = vianic_virtio_probe,
	.remove = vianic_virtio_remove,
#ifdef CONFIG_PM_SLEEP
	.freeze = vianic_virtio_freeze,
	.restore = vianic_virtio_restore,
#endif
};

int vianic_virtio_init(void)
{
	return register_virtio_driver(&vianic_virtio_driver);
}

void vianic_virtio_exit(void)
{
	unregister_virtio_driver(&vianic_virtio_driver);
}
