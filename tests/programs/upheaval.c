/*
 * What the world does to registered memory: fork, munmap, mremap, pressure, compaction, huge pages. The card goes on
 * reaching the pages that were registered, and nothing else. For guests, as root.
 *
 * usage: upheaval NIC
 */
#define _GNU_SOURCE

#include "loopback.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_PAGE (2UL << 20)
#define GIGABYTE (1UL << 30)

static unsigned long counter(const char *name)
{
	unsigned long value;
	char path[128];
	FILE *file;

	sprintf(path, "/sys/class/misc/vianic0/%s", name);
	file = fopen(path, "r");
	MUST(file != NULL && fscanf(file, "%lu", &value) == 1);
	fclose(file);
	return value;
}

static void tell_kernel(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	MUST(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* The child has the bytes as they were, in pages of its own; the card writes to the parent's. */
static void test_fork(void)
{
	unsigned char *memory = map(SIZE, 0);
	VIP_MEM_HANDLE handle;
	int go[2], status;
	char byte = 0;
	pid_t child;

	memset(memory, 1, SIZE);
	handle = register_memory(memory, SIZE);
	MUST(pipe(go) == 0);
	child = fork();
	MUST(child >= 0);
	if (child == 0) {
		MUST(read(go[0], &byte, 1) == 1);
		MUST(is_all(memory, SIZE, 1));
		memset(memory, 3, SIZE);
		_exit(0);
	}
	/* A store of the parent's must not give it new pages. */
	memset(memory, 2, PAGE);
	write_by_card(memory + PAGE, handle, 2, SIZE - PAGE);
	MUST(is_all(memory, SIZE, 2));
	MUST(write(go[1], &byte, 1) == 1 && waitpid(child, &status, 0) == child && status == 0);
	MUST(is_all(memory, SIZE, 2));
	deregister_memory(memory, handle);
	munmap(memory, SIZE);
}

/* What is mapped later where registered memory was is other memory. */
static void test_munmap(void)
{
	unsigned char *memory = map(SIZE, 0), *later;
	VIP_MEM_HANDLE handle = register_memory(memory, SIZE);

	MUST(munmap(memory, SIZE) == 0);
	write_by_card(memory, handle, 4, SIZE);
	later = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
	MUST(later == memory);
	memset(later, 5, SIZE);
	write_by_card(memory, handle, 6, SIZE);
	MUST(is_all(later, SIZE, 5));
	deregister_memory(memory, handle);
	munmap(later, SIZE);
}

/* The pages take their registration with them, whatever address they have now. */
static void test_mremap(void)
{
	unsigned char *memory = map(SIZE, 0), *place = map(SIZE, 0), *moved;
	VIP_MEM_HANDLE handle = register_memory(memory, SIZE);

	moved = mremap(memory, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	MUST(moved == place);
	write_by_card(memory, handle, 7, SIZE);
	MUST(is_all(moved, SIZE, 7));
	deregister_memory(memory, handle);
	munmap(moved, SIZE);
}

/* A kernel that looks for memory moves and reclaims what it can, but not these pages. */
static void test_pressure(void)
{
	unsigned long most = (unsigned long)sysconf(_SC_AVPHYS_PAGES) / 10 * 6 * PAGE;
	unsigned char *memory = map(SIZE, 0), *hog;
	VIP_MEM_HANDLE handle;
	int round;

	memset(memory, 8, SIZE);
	handle = register_memory(memory, SIZE);
	for (round = 10; round < 13; round++) {
		hog = map(most, 0);
		memset(hog, 9, most);
		tell_kernel("/proc/sys/vm/compact_memory", "1");
		tell_kernel("/proc/sys/vm/drop_caches", "3");
		write_by_card(memory, handle, round, SIZE);
		MUST(is_all(memory, SIZE, round));
		munmap(hog, most);
	}
	/* Bytes dropped on purpose are gone; the card still has the pages, and the program others. */
	MUST(madvise(memory, SIZE, MADV_DONTNEED) == 0);
	write_by_card(memory, handle, 14, SIZE);
	MUST(is_all(memory, SIZE, 0));
	deregister_memory(memory, handle);
	munmap(memory, SIZE);
}

/* A gigabyte in huge pages takes next to no page table, and the card finds all of it. */
static void check_gigabyte(const char *kind, unsigned char *memory)
{
	unsigned long offsets[6], before = counter("page_table_bytes"), taken, i;
	VIP_MEM_HANDLE handle;

	memset(memory, 1, GIGABYTE);
	/* Neither ends at a page. */
	handle = register_memory(memory + 5, GIGABYTE - 10);
	taken = counter("page_table_bytes") - before;
	printf("1 GiB of %s: %lu bytes of page table\n", kind, taken);
	MUST(taken < 1UL << 20);
	offsets[0] = 5;
	offsets[1] = HUGE_PAGE - 3;
	offsets[2] = 77 * HUGE_PAGE - PAGE - 1;
	offsets[3] = GIGABYTE / 2 - 1;
	offsets[4] = 511 * HUGE_PAGE - 1;
	offsets[5] = GIGABYTE - 5 - SIZE;
	for (i = 0; i < 6; i++) {
		write_by_card(memory + offsets[i], handle, 20 + (int)i, SIZE);
		MUST(is_all(memory + offsets[i], SIZE, 20 + (int)i));
		MUST(memory[offsets[i] - 1] == 1 && memory[offsets[i] + SIZE] == 1);
	}
	deregister_memory(memory + 5, handle);
}

static void test_huge_pages(void)
{
	unsigned char *reserved = map(GIGABYTE + HUGE_PAGE, 0), *memory;
	unsigned long start = ((unsigned long)reserved + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);

	memory = (unsigned char *)start;
	tell_kernel("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	MUST(madvise(memory, GIGABYTE, MADV_HUGEPAGE) == 0);
	check_gigabyte("transparent huge pages", memory);
	munmap(reserved, GIGABYTE + HUGE_PAGE);

	tell_kernel("/proc/sys/vm/nr_hugepages", "512");
	memory = map(GIGABYTE, MAP_HUGETLB);
	check_gigabyte("hugetlb pages", memory);
	munmap(memory, GIGABYTE);
	tell_kernel("/proc/sys/vm/nr_hugepages", "0");
}

int main(int argc, char **argv)
{
	MUST(argc == 2);
	open_nic(argv[1]);
	test_huge_pages();
	test_fork();
	test_munmap();
	test_mremap();
	test_pressure();
	close_nic();
	return 0;
}
