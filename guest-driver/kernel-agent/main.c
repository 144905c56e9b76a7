// SPDX-License-Identifier: GPL-2.0
/* The Kernel Agent of the vianic card: the module. */

#include <linux/module.h>

#include "nic.h"

/* Everything that the module does outside of calls and interrupts. */
struct workqueue_struct *vianic_wq;
struct workqueue_struct *vianic_peer_wq;

/* Attempts with a peer that are ended at once. */
#define VIANIC_PEER_WORKERS 16

unsigned int vianic_command_timeout = 30;
module_param_named(command_timeout, vianic_command_timeout, uint, 0644);
MODULE_PARM_DESC(command_timeout,
		 "Seconds that a card may take for a command before it counts as failed (default 30)");

bool vianic_eager_deregistration;
module_param_named(eager_deregistration, vianic_eager_deregistration, bool, 0644);
MODULE_PARM_DESC(eager_deregistration,
		 "Deregistration waits until the card has let go of the memory (off)");

static int __init vianic_init(void)
{
	int err = -ENOMEM;

	/* Unbound: a reset waits for the work that reaps, and both must be able to run at once. */
	vianic_wq = alloc_workqueue("vianic", WQ_UNBOUND, 0);
	if (!vianic_wq)
		return err;
	vianic_peer_wq = alloc_workqueue("vianic_peer", WQ_UNBOUND, VIANIC_PEER_WORKERS);
	if (!vianic_peer_wq)
		goto err_wq;
	err = vianic_virtio_init();
	if (err)
		goto err_peer_wq;
	return 0;

err_peer_wq:
	destroy_workqueue(vianic_peer_wq);
err_wq:
	destroy_workqueue(vianic_wq);
	return err;
}

static void __exit vianic_exit(void)
{
	vianic_virtio_exit();
	destroy_workqueue(vianic_peer_wq);
	destroy_workqueue(vianic_wq);
}

module_init(vianic_init);
module_exit(vianic_exit);

MODULE_DESCRIPTION("Kernel Agent of the vianic VIA network interface card");
MODULE_AUTHOR("The vianic developers");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
