// SPDX-License-Identifier: GPL-2.0
/* Finding the NICs of the fabric. */

#include <linux/slab.h>

#include "nic.h"

int vianic_discover(struct vianic_context *ctx, struct vianic_discover_nics *call)
{
	struct vianic_nic_list *list = kzalloc(sizeof(*list), GFP_KERNEL_ACCOUNT);
	struct vianic_discover body = { .first = call->first };
	int status;

	if (!list)
		return VIANIC_STATUS_ERROR_RESOURCE;
	body.list = virt_to_phys(list);
	status = vianic_command(ctx->nic, ctx, VIANIC_OPCODE_DISCOVER, &body);
	if (!status) {
		call->list = *list;
		/* The card's word, within its bounds. */
		call->list.count = min_t(u32, call->list.count, VIANIC_NIC_LIST_ENTRIES);
	}
	kfree(list);
	return status;
}
