/* The words of what tests cover. */
#include <stdio.h>
#include <string.h>

#include "cover.h"

struct word {
	const char *text;
	/* Without the levels and the '?'. */
	size_t length;
	unsigned int levels;
	int is_optional;
};

static const struct {
	const char *name;
	unsigned int levels;
} suffixes[] = {
	{ "@unreliable", VIP_SERVICE_UNRELIABLE },
	{ "@delivery", VIP_SERVICE_RELIABLE_DELIVERY },
	{ "@reception", VIP_SERVICE_RELIABLE_RECEPTION },
	{ "@reliable", VIP_SERVICE_RELIABLE_DELIVERY | VIP_SERVICE_RELIABLE_RECEPTION },
};

/* Takes a word from the front of a list; 0 at its end. */
static int take_word(const char **list, struct word *word)
{
	size_t all, i;

	*list += strspn(*list, " ");
	all = strcspn(*list, " ");
	if (all == 0)
		return 0;
	word->text = *list;
	*list += all;
	word->is_optional = word->text[all - 1] == '?';
	all -= (size_t)word->is_optional;
	word->length = all;
	word->levels = VIP_SERVICE_UNRELIABLE | VIP_SERVICE_RELIABLE_DELIVERY | VIP_SERVICE_RELIABLE_RECEPTION;
	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t length = strlen(suffixes[i].name);

		if (all > length && memcmp(word->text + all - length, suffixes[i].name, length) == 0) {
			word->length = all - length;
			word->levels = suffixes[i].levels;
		}
	}
	return 1;
}

words word_of(const char *covers, const char *kind, const char *what)
{
	size_t kind_length = strlen(kind), what_length = strlen(what);
	struct word word;
	words found = 0;
	int place;

	for (place = 0; place < MAX_WORDS && take_word(&covers, &word); place++)
		if (word.length == kind_length + 1 + what_length && memcmp(word.text, kind, kind_length) == 0 &&
		    word.text[kind_length] == ':' &&
		    memcmp(word.text + kind_length + 1, what, what_length) == 0)
			found |= (words)1 << place;
	return found;
}

const char *unseen_word(const char *covers, VIP_RELIABILITY_LEVEL level, words seen)
{
	static char text[100];
	struct word word;
	int place;

	for (place = 0; take_word(&covers, &word); place++) {
		if (place == MAX_WORDS)
			return "more words than there may be";
		if (word.is_optional || !(word.levels & level) || seen & (words)1 << place)
			continue;
		snprintf(text, sizeof(text), "%.*s", (int)word.length, word.text);
		return text;
	}
	return NULL;
}
