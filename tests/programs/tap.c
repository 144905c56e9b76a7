#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tap.h"

static unsigned int tests, failures;

static void report(bool passed, const char *format, va_list args)
{
	printf("%sok %u - ", passed ? "" : "not ", ++tests);
	vprintf(format, args);
	printf("\n");
	failures += !passed;
	fflush(stdout);
}

bool tap_ok(bool passed, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	report(passed, format, args);
	va_end(args);
	return passed;
}

bool tap_is(long got, long expected, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	report(got == expected, format, args);
	va_end(args);
	if (got != expected)
		printf("# got %ld, expected %ld\n", got, expected);
	return got == expected;
}

void tap_skip(const char *what, const char *why)
{
	printf("ok %u - %s # SKIP %s\n", ++tests, what, why);
}

void tap_bail_out(const char *format, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_Exit(EXIT_FAILURE);
}

int tap_end(void)
{
	printf("1..%u\n", tests);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
