/*
 * What a test says that it shows, in words, one blank apart:
 *
 *   VipRecvDone:VIP_NOT_DONE      a function returns a code
 *   status:FORMAT_ERROR           a descriptor comes back with a bit, VIP_STATUS_FORMAT_ERROR, or an operation
 *   error:CONN_LOST               the error handler gets a code, VIP_ERROR_CONN_LOST
 *   state:Idle-ConnectPending     a VI goes from one state to another; it comes from "create" and goes to "destroy"
 *
 * A word holds for each reliability level that the test runs at, or for those behind an '@': @unreliable, @delivery,
 * @reception, and @reliable for the last two. With a '?' at its end it holds only for some providers.
 *
 * Whether a test has seen what it says it shows is said when it is run, and with --strict it fails if it has not.
 */
#ifndef COVER_H
#define COVER_H

#include <vipl.h>

/* The words that a run has seen, by their place in the test's list. */
typedef VIP_UINT64 words;
#define MAX_WORDS 64

/* The word "kind:what" of a test's list, or 0 if it is not in it. */
words word_of(const char *covers, const char *kind, const char *what);
/* A word that holds at `level` and is not among `seen`: its text, for a message. NULL if there is none. */
const char *unseen_word(const char *covers, VIP_RELIABILITY_LEVEL level, words seen);

#endif
