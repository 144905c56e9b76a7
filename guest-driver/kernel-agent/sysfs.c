// SPDX-License-Identifier: GPL-2.0
/* What the Kernel Agent counts: /sys/class/misc/vianicN/. */

#include <linux/sysfs.h>

#include "nic.h"

static struct vianic_nic *vianic_of(struct device *dev)
{
	return container_of((struct miscdevice *)dev_get_drvdata(dev), struct vianic_nic, misc);
}

#define VIANIC_ATTRIBUTE(_name, _format, _value)					\
static ssize_t _name##_show(struct device *dev, struct device_attribute *attr, char *buf)	\
{											\
	struct vianic_nic *nic = vianic_of(dev);					\
											\
	return sysfs_emit(buf, _format "\n", _value);					\
}											\
static DEVICE_ATTR_RO(_name)

VIANIC_ATTRIBUTE(pinned_pages, "%ld", atomic_long_read(&nic->pinned_pages));
VIANIC_ATTRIBUTE(page_table_bytes, "%ld", atomic_long_read(&nic->page_table_bytes));
VIANIC_ATTRIBUTE(regions, "%d", atomic_read(&nic->regions));
VIANIC_ATTRIBUTE(registrations, "%lld", atomic64_read(&nic->registrations));
VIANIC_ATTRIBUTE(mdl_full, "%lld", atomic64_read(&nic->mdl_full));
VIANIC_ATTRIBUTE(pending_unpins, "%d", atomic_read(&nic->pending_unpins));
VIANIC_ATTRIBUTE(contexts, "%d", atomic_read(&nic->context_count));
VIANIC_ATTRIBUTE(interrupts, "%lld", atomic64_read(&nic->interrupts));
VIANIC_ATTRIBUTE(events, "%lld", atomic64_read(&nic->events));
VIANIC_ATTRIBUTE(ioctls, "%lld", atomic64_read(&nic->ioctls));
VIANIC_ATTRIBUTE(commands, "%lld", atomic64_read(&nic->command_count));
VIANIC_ATTRIBUTE(state, "%s", vianic_nic_is_live(nic) ? "live" : "down");

static struct attribute *vianic_attrs[] = {
	&dev_attr_pinned_pages.attr,
	&dev_attr_page_table_bytes.attr,
	&dev_attr_regions.attr,
	&dev_attr_registrations.attr,
	&dev_attr_mdl_full.attr,
	&dev_attr_pending_unpins.attr,
	&dev_attr_contexts.attr,
	&dev_attr_interrupts.attr,
	&dev_attr_events.attr,
	&dev_attr_ioctls.attr,
	&dev_attr_commands.attr,
	&dev_attr_state.attr,
	NULL,
};

static const struct attribute_group vianic_group = {
	.attrs = vianic_attrs,
};

const struct attribute_group *vianic_groups[] = { &vianic_group, NULL };
