/*
 * What the world does to registered memory: fork, munmap, mremap, pressure, compaction, huge pages. The card goes on
 * reaching the pages that were registered, and nothing else. For guests, as root.
 *
 * usage: upheaval NIC
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vipl.h>

#define PAGE 4096UL
#define HUGE_PAGE (2UL << 20)
#define GIGABYTE (1UL << 30)
#define SIZE (40 * PAGE)
#define TIMEOUT 60000
#define ADDRESS_SIZE 64
#define DISCRIMINATOR "upheaval"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define CHECK(call) expect(__LINE__, #call, (int)(call), VIP_SUCCESS)
#define MUST(condition) expect(__LINE__, #condition, !(condition), 0)

static VIP_NIC_HANDLE nic;
static VIP_NIC_ATTRIBUTES nic_attributes;
static VIP_VI_HANDLE client, server;
/* A descriptor, and behind it the bytes that are written. */
static unsigned char *source;
static VIP_MEM_HANDLE source_handle;

static void expect(int line, const char *what, int code, int expected)
{
	if (code == expected)
		return;
	fprintf(stderr, "upheaval.c:%d: %s (%d)\n", line, what, code);
	_exit(1);
}

/* --- The card's way to the memory --- */

static VIP_NET_ADDRESS *new_address(void)
{
	VIP_NET_ADDRESS *address = calloc(1, ADDRESS_SIZE);

	MUST(address != NULL);
	address->HostAddressLen = nic_attributes.NicAddressLen;
	address->DiscriminatorLen = (VIP_UINT16)strlen(DISCRIMINATOR);
	memcpy(address->HostAddress, nic_attributes.LocalNicAddress, nic_attributes.NicAddressLen);
	memcpy(address->HostAddress + nic_attributes.NicAddressLen, DISCRIMINATOR,
	       strlen(DISCRIMINATOR));
	return address;
}

static void *serve(void *unused)
{
	VIP_NET_ADDRESS *local = new_address(), *remote = new_address();
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;

	CHECK(VipConnectWait(nic, local, TIMEOUT, remote, &attributes, &connection));
	CHECK(VipConnectAccept(connection, server));
	return unused;
}

static void open_nic(const char *name)
{
	VIP_NET_ADDRESS *address;
	VIP_VI_ATTRIBUTES attributes;
	void *memory = NULL;
	pthread_t thread;
	VIP_RETURN code;

	CHECK(VipOpenNic(name, &nic));
	CHECK(VipQueryNic(nic, &nic_attributes));
	memset(&attributes, 0, sizeof(attributes));
	attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
	attributes.MaxTransferSize = nic_attributes.MaxTransferSize;
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &client));
	CHECK(VipCreateVi(nic, &attributes, NULL, NULL, &server));
	address = new_address();
	MUST(pthread_create(&thread, NULL, serve, NULL) == 0);
	do
		code = VipConnectRequest(client, address, address, TIMEOUT, &attributes);
	while (code == VIP_NO_MATCH);
	CHECK(code);
	pthread_join(thread, NULL);
	MUST(posix_memalign(&memory, PAGE, SIZE + PAGE) == 0);
	source = memory;
	CHECK(VipRegisterMem(nic, source, SIZE + PAGE, NULL, &source_handle));
}

static VIP_MEM_HANDLE register_memory(void *memory, unsigned long size)
{
	VIP_MEM_ATTRIBUTES attributes;
	VIP_MEM_HANDLE handle;

	memset(&attributes, 0, sizeof(attributes));
	attributes.EnableRdmaWrite = VIP_TRUE;
	CHECK(VipRegisterMem(nic, memory, size, &attributes, &handle));
	return handle;
}

/* Has the card write @size bytes of @value to what was registered at @address. */
static void write_by_card(const void *address, VIP_MEM_HANDLE handle, int value, unsigned long size)
{
	VIP_DESCRIPTOR *d = (VIP_DESCRIPTOR *)source, *done;

	memset(source + PAGE, value, size);
	memset(d, 0, sizeof(*d));
	d->Control.Control = VIP_CONTROL_OP_RDMAWRITE;
	d->Control.SegCount = 2;
	d->Control.Length = (VIP_UINT32)size;
	d->DS[0].Remote.Data.AddressBits = (unsigned long)address;
	d->DS[0].Remote.Handle = handle;
	d->DS[1].Local.Data.AddressBits = (unsigned long)source + PAGE;
	d->DS[1].Local.Handle = source_handle;
	d->DS[1].Local.Length = (VIP_UINT32)size;
	CHECK(VipPostSend(client, d, source_handle));
	CHECK(VipSendWait(client, TIMEOUT, &done));
	MUST(!(done->Control.Status & VIP_STATUS_ERROR_MASK));
}

/* --- The world --- */

static unsigned char *map(unsigned long size, int flags)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	MUST(memory != MAP_FAILED);
	return memory;
}

static int is_all(const unsigned char *bytes, unsigned long size, int value)
{
	return bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0;
}

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
	CHECK(VipDeregisterMem(nic, memory, handle));
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
	CHECK(VipDeregisterMem(nic, memory, handle));
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
	CHECK(VipDeregisterMem(nic, memory, handle));
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
		/* Without swap the advice does nothing; it is advice. */
		(void)madvise(memory, SIZE, MADV_PAGEOUT);
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
	CHECK(VipDeregisterMem(nic, memory, handle));
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
	CHECK(VipDeregisterMem(nic, memory + 5, handle));
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
	CHECK(VipCloseNic(nic));
	return 0;
}
