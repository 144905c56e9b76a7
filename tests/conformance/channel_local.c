/* A channel between two threads. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "channel.h"

/* The roles never run ahead of each other by more than a packet and an END. */
#define ROOM 8
#define SILENCE_S 120

struct pipe {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct packet packets[ROOM];
	unsigned int head, tail;
};

struct local_channel {
	struct channel channel;
	struct pipe *out, *in;
};

static void deadline(struct timespec *when)
{
	clock_gettime(CLOCK_REALTIME, when);
	when->tv_sec += SILENCE_S;
}

static int send_packet(struct channel *channel, const struct packet *packet)
{
	struct pipe *pipe = ((struct local_channel *)channel)->out;
	struct timespec limit;
	int code = 0;

	deadline(&limit);
	pthread_mutex_lock(&pipe->lock);
	while (pipe->tail - pipe->head == ROOM && code == 0)
		code = pthread_cond_timedwait(&pipe->changed, &pipe->lock, &limit);
	if (code == 0) {
		pipe->packets[pipe->tail++ % ROOM] = *packet;
		pthread_cond_broadcast(&pipe->changed);
	}
	pthread_mutex_unlock(&pipe->lock);
	return code == 0 ? 0 : -1;
}

static int receive_packet(struct channel *channel, struct packet *packet)
{
	struct pipe *pipe = ((struct local_channel *)channel)->in;
	struct timespec limit;
	int code = 0;

	deadline(&limit);
	pthread_mutex_lock(&pipe->lock);
	while (pipe->tail == pipe->head && code == 0)
		code = pthread_cond_timedwait(&pipe->changed, &pipe->lock, &limit);
	if (code == 0) {
		*packet = pipe->packets[pipe->head++ % ROOM];
		pthread_cond_broadcast(&pipe->changed);
	}
	pthread_mutex_unlock(&pipe->lock);
	return code == 0 ? 0 : -1;
}

void local_channel(struct channel *ends[2])
{
	static struct pipe pipes[2];
	static struct local_channel sides[2];
	int i;

	for (i = 0; i < 2; i++) {
		pthread_mutex_init(&pipes[i].lock, NULL);
		pthread_cond_init(&pipes[i].changed, NULL);
		sides[i].channel.send = send_packet;
		sides[i].channel.receive = receive_packet;
		sides[i].out = &pipes[i];
		sides[i].in = &pipes[1 - i];
		ends[i] = &sides[i].channel;
	}
}
