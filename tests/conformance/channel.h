/* What the two roles say to each other beside the test. Messages arrive in order. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stddef.h>

#include <vipl.h>

#define CHANNEL_BYTES 1024

enum kind {
	START, /* the first role begins a run */
	TRADE, /* bytes of trade() */
	END,   /* the role has ended: passed, skipped or failed, and why */
	LEAVE  /* there are no more tests */
};

struct packet {
	VIP_UINT32 kind;
	VIP_UINT32 length;
	char bytes[CHANNEL_BYTES];
};

struct channel {
	/* Each returns 0, or -1 when the other role is gone or silent for too long. */
	int (*send)(struct channel *channel, const struct packet *packet);
	int (*receive)(struct channel *channel, struct packet *packet);
};

/* Two ends in one process. */
void local_channel(struct channel *ends[2]);
/* An end in this process; the other end is another process. Explains on standard error and exits if it can't be had. */
struct channel *serve_channel(const char *nic_name);
struct channel *client_channel(const char *nic_name, const unsigned char *host, size_t host_length);
#endif
