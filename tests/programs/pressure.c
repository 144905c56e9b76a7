/*
 * Registered memory in a guest whose kernel takes memory back. There is a region, which the card writes to all the time, and memory
 * beside it that differs in one thing only: it is not registered. Each line of input is answered with a line that tells how much of
 * the latter is in the swap; the region's pages must all be in the page frames that they were in when they were registered. The line
 * "out" has the kernel page out the region and a part of the other memory before. At the end of the input every byte is checked. For
 * guests with swap, as root.
 *
 * usage: pressure NIC
 */
#define _GNU_SOURCE

#include "loopback.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_PAGES (64UL << 8)
#define OTHER_PAGES (128UL << 8)
/* As many as a slow guest writes to a disk in a few seconds. */
#define OUT_PAGES (32UL << 8)

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* Bits of an entry of /proc/self/pagemap. */
#define PRESENT (1UL << 63)
#define SWAPPED (1UL << 62)
#define FRAME ((1UL << 55) - 1)

static unsigned char *region, *other;
static VIP_MEM_HANDLE handle;
/* What the card has written to each page. */
static unsigned char written[REGION_PAGES];
static unsigned long frames[REGION_PAGES];
static volatile int stop;

/* Not zero: pages of zeros need no room in the swap. */
static int value_of(unsigned long page)
{
	return 1 + (int)(page % 251);
}

static void read_pagemap(const unsigned char *memory, unsigned long pages, unsigned long *entries)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	ssize_t size = (ssize_t)(pages * sizeof(*entries));
	off_t offset = (off_t)((unsigned long)memory / PAGE * sizeof(*entries));

	MUST(fd >= 0 && pread(fd, entries, (size_t)size, offset) == size);
	close(fd);
}

static unsigned long frame(unsigned long entry)
{
	MUST(entry & PRESENT && !(entry & SWAPPED));
	/* Who may not see them, sees zeros. */
	MUST((entry & FRAME) != 0);
	return entry & FRAME;
}

static void remember_frames(void)
{
	static unsigned long entries[REGION_PAGES];
	unsigned long i;

	read_pagemap(region, REGION_PAGES, entries);
	for (i = 0; i < REGION_PAGES; i++)
		frames[i] = frame(entries[i]);
}

/* Checks where the region is; pages of the other memory that are in the swap. */
static unsigned long look(void)
{
	static unsigned long entries[OTHER_PAGES];
	unsigned long swapped = 0, i;

	read_pagemap(region, REGION_PAGES, entries);
	for (i = 0; i < REGION_PAGES; i++)
		MUST(frame(entries[i]) == frames[i]);
	read_pagemap(other, OTHER_PAGES, entries);
	for (i = 0; i < OTHER_PAGES; i++)
		swapped += (entries[i] & SWAPPED) != 0;
	return swapped;
}

/* The card writes to the region, and what it writes arrives there. */
static void *write_all_the_time(void *writes)
{
	unsigned long pages = SIZE / PAGE, first, i;
	unsigned long *count = writes;
	unsigned int random = 1;
	int value;

	while (!stop) {
		first = (unsigned long)rand_r(&random) % (REGION_PAGES - pages);
		value = value_of(*count);
		write_by_card(region + first * PAGE, handle, value, SIZE);
		MUST(is_all(region + first * PAGE, SIZE, value));
		for (i = first; i < first + pages; i++)
			written[i] = (unsigned char)value;
		++*count;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long writes = 0, i;
	pthread_t writer;
	char line[16];

	MUST(argc == 2);
	open_nic(argv[1]);
	region = map(REGION_PAGES * PAGE, 0);
	other = map(OTHER_PAGES * PAGE, 0);
	for (i = 0; i < REGION_PAGES; i++)
		memset(region + i * PAGE, written[i] = (unsigned char)value_of(i), PAGE);
	for (i = 0; i < OTHER_PAGES; i++)
		memset(other + i * PAGE, value_of(i), PAGE);
	handle = register_memory(region, REGION_PAGES * PAGE);
	remember_frames();
	MUST(pthread_create(&writer, NULL, write_all_the_time, &writes) == 0);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strcmp(line, "out\n") == 0) {
			MUST(madvise(other, OUT_PAGES * PAGE, MADV_PAGEOUT) == 0);
			MUST(madvise(region, REGION_PAGES * PAGE, MADV_PAGEOUT) == 0);
		}
		printf("%lu of %lu pages in the swap\n", look(), OTHER_PAGES);
		fflush(stdout);
	}
	stop = 1;
	MUST(pthread_join(writer, NULL) == 0);
	look();
	for (i = 0; i < REGION_PAGES; i++)
		MUST(is_all(region + i * PAGE, PAGE, written[i]));
	for (i = 0; i < OTHER_PAGES; i++)
		MUST(is_all(other + i * PAGE, PAGE, value_of(i)));
	printf("%lu writes\n", writes);
	MUST(writes > 0);
	deregister_memory(region, handle);
	close_nic();
	return 0;
}
