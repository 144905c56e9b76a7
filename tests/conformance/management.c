/* What is told of the network. */
#include <string.h>

#include "suite.h"

#define NICS 64

/* Room for the addresses, and pointers to it. */
struct found {
	VIP_AUTODISCOVERY_LIST list;
	VIP_NET_ADDRESS *pointers[NICS];
	union address addresses[NICS];
};

static struct found *look(struct side *side, VIP_ULONG room)
{
	struct found *found = new_memory(side, sizeof(*found), 16);
	unsigned int i;

	memset(found->addresses, 0xa5, sizeof(found->addresses));
	for (i = 0; i < NICS; i++)
		found->pointers[i] = &found->addresses[i].net;
	found->list.NumberOfHops = 1;
	found->list.ADAddrArray = found->pointers;
	found->list.NumAdAddrs = room;
	OK(side, VipQuerySystemManagementInfo(side->nic, VIP_SMI_AUTODISCOVERY, &found->list));
	return found;
}

static void bad_calls(struct side *side)
{
	VIP_AUTODISCOVERY_LIST list = { 1, NULL, 1 };
	VIP_NET_ADDRESS *none[1] = { NULL };

	IS(side, VipQuerySystemManagementInfo(NULL, VIP_SMI_AUTODISCOVERY, &list), VIP_INVALID_PARAMETER);
	IS(side, VipQuerySystemManagementInfo(side->nic, VIP_SMI_AUTODISCOVERY, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipQuerySystemManagementInfo(side->nic, VIP_SMI_AUTODISCOVERY, &list), VIP_INVALID_PARAMETER);
	list.ADAddrArray = none;
	IS(side, VipQuerySystemManagementInfo(side->nic, VIP_SMI_AUTODISCOVERY, &list), VIP_INVALID_PARAMETER);
	IS(side, VipQuerySystemManagementInfo(side->nic, 0, &list), VIP_INVALID_PARAMETER);
	IS(side, VipQuerySystemManagementInfo(side->nic, 2, &list), VIP_INVALID_PARAMETER);
}

static int is_among(const struct side *side, const struct found *found, const unsigned char *host)
{
	unsigned int i;

	for (i = 0; i < found->list.NumAdAddrs; i++)
		if (memcmp(found->addresses[i].net.HostAddress, host, side->attributes.NicAddressLen) == 0)
			return 1;
	return 0;
}

/* Both roles' NICs are among those that are found, and a connection can be made to what is. */
static void discovering(struct side *side)
{
	size_t length = side->attributes.NicAddressLen, i, j;
	struct found *found;

	meet(side);
	found = look(side, NICS);
	CHECK(side, found->list.NumAdAddrs >= 1 && found->list.NumAdAddrs <= NICS);
	CHECK(side, is_among(side, found, side->attributes.LocalNicAddress) && is_among(side, found, side->peer_host));
	for (i = 0; i < found->list.NumAdAddrs; i++) {
		CHECK(side, found->addresses[i].net.HostAddressLen == length);
		CHECK(side, found->addresses[i].net.DiscriminatorLen == 0);
		CHECK(side, found->addresses[i].bytes[4 + length] == 0xa5);
		for (j = 0; j < i; j++)
			CHECK(side, memcmp(found->addresses[i].net.HostAddress, found->addresses[j].net.HostAddress,
					   length) != 0);
	}
	for (; i < NICS; i++)
		CHECK(side, found->addresses[i].bytes[0] == 0xa5);
	meet(side);
}

/* There may be more NICs than there is room. */
static void little_room(struct side *side)
{
	VIP_ULONG all = look(side, NICS)->list.NumAdAddrs;
	struct found *found = look(side, 1);

	CHECK(side, found->list.NumAdAddrs == all);
	CHECK(side, found->addresses[0].net.HostAddressLen == side->attributes.NicAddressLen);
	CHECK(side, found->addresses[1].bytes[0] == 0xa5);
	found = look(side, 0);
	CHECK(side, found->list.NumAdAddrs == all && found->addresses[0].bytes[0] == 0xa5);
}

static const struct test tests[] = {
	{ "bad_parameters", "M:m", "VipQuerySystemManagementInfo:VIP_INVALID_PARAMETER", ONCE, bad_calls, NULL },
	{ "nics_are_discovered", "HI M:m", "VipQuerySystemManagementInfo:VIP_SUCCESS", ONCE, discovering, discovering },
	{ "there_is_little_room", "D", "VipQuerySystemManagementInfo:VIP_SUCCESS", ONCE, little_room, NULL },
};

const struct group management_group = GROUP("management", NULL, tests);
