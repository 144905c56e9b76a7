/* A NIC connected with itself, through which the card writes to registered memory. */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <vipl.h>

#define PAGE 4096UL
/* The most that the card writes at once. */
#define SIZE (40 * PAGE)

#define CHECK(call) expect(__FILE__, __LINE__, #call, (int)(call))
#define MUST(condition) expect(__FILE__, __LINE__, #condition, !(condition))

/* Ends the program if @code is not 0. */
void expect(const char *file, int line, const char *what, int code);

/* Opens the NIC and connects it with itself. */
void open_nic(const char *name);
void close_nic(void);

VIP_MEM_HANDLE register_memory(void *memory, unsigned long size);
void deregister_memory(void *memory, VIP_MEM_HANDLE handle);

/* Has the card write @size bytes of @value to what was registered at @address. */
void write_by_card(const void *address, VIP_MEM_HANDLE handle, int value, unsigned long size);

/* Anonymous memory, with more flags for mmap. */
unsigned char *map(unsigned long size, int flags);

int is_all(const unsigned char *bytes, unsigned long size, int value);

#endif
