/*
 * Counts the machine's NICs as programs of old do: opens one name after the other until one is refused, and keeps all open.
 *
 * usage: probe
 */
#include <stdio.h>
#include <stdlib.h>

#include <vipl.h>

/* Far more than any machine has: who counts further would never end. */
#define MOST 1000

static int count(const char *format, int first)
{
	VIP_NIC_HANDLE nics[MOST];
	char name[64];
	int found = 0, i;

	while (found < MOST) {
		sprintf(name, format, first + found);
		if (VipOpenNic(name, &nics[found]) != VIP_SUCCESS)
			break;
		found++;
	}
	for (i = 0; i < found; i++)
		if (VipCloseNic(nics[i]) != VIP_SUCCESS)
			exit(1);
	return found;
}

int main(void)
{
	static const struct {
		const char *format;
		int first;
	} families[] = {
		{ "VINIC%d", 0 },
		{ "nic%d", 0 },
		{ "\\\\.\\VI%d", 1 },
		{ "/dev/clanvi%d", 0 },
		{ "/dev/via_eth%d", 0 },
		{ "/dev/vianic%d", 0 },
		{ "no such name %d", 0 },
	};
	size_t i;

	for (i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		printf("%d\n", count(families[i].format, families[i].first));
	return 0;
}
