/* The report of a test program, in the Test Anything Protocol. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>

/* One test that has ended; returns @passed. */
__attribute__((format(printf, 2, 3))) bool tap_ok(bool passed, const char *format, ...);

/* One test of a number; says what came instead. */
__attribute__((format(printf, 3, 4))) bool tap_is(long got, long expected, const char *format, ...);

/* One test that cannot be made here. */
void tap_skip(const char *what, const char *why);

/* Nothing more can be tested. */
__attribute__((noreturn, format(printf, 1, 2))) void tap_bail_out(const char *format, ...);

/* Writes the plan; returns the program's exit code. */
int tap_end(void);

#endif
