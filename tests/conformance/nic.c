/* NICs: opening, closing, attributes. */
#include <string.h>

#include "suite.h"

static void opening(struct side *side)
{
	VIP_NIC_HANDLE other = NULL, third;
	VIP_NIC_ATTRIBUTES attributes;

	OK(side, VipOpenNic(side->nic_name, &other));
	CHECK(side, other != NULL && other != side->nic);
	OK(side, VipQueryNic(other, &attributes));
	CHECK(side, memcmp(attributes.LocalNicAddress, side->attributes.LocalNicAddress,
			   side->attributes.NicAddressLen) == 0);
	OK(side, VipCloseNic(other));
	IS(side, VipCloseNic(other), VIP_INVALID_PARAMETER);
	IS(side, VipQueryNic(other, &attributes), VIP_INVALID_PARAMETER);
	OK(side, VipOpenNic(side->nic_name, &third));
	OK(side, VipCloseNic(third));
}

static void unknown_names(struct side *side)
{
	static const char *const names[] = { "", "no such NIC", "VINIC4000000000", "/dev/null", "nic-1" };
	VIP_NIC_HANDLE nic;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		IS(side, VipOpenNic(names[i], &nic), VIP_INVALID_PARAMETER);
	IS(side, VipOpenNic(NULL, &nic), VIP_INVALID_PARAMETER);
	IS(side, VipOpenNic(side->nic_name, NULL), VIP_INVALID_PARAMETER);
}

static void probing_ends(struct side *side)
{
	VIP_NIC_HANDLE nic;
	char name[8] = "VINIC0";
	int i;

	for (i = 0; i < 10; i++) {
		name[5] = (char)('0' + i);
		if (VipOpenNic(name, &nic) != VIP_SUCCESS)
			return;
		OK(side, VipCloseNic(nic));
	}
	FAIL(side, "ten NICs, and no end");
}

static void attributes(struct side *side)
{
	const VIP_NIC_ATTRIBUTES *a = &side->attributes;

	CHECK(side, a->NicAddressLen == 6);
	CHECK(side, a->LocalNicAddress != NULL);
	CHECK(side, a->ThreadSafe);
	CHECK(side, a->MaxDiscriminatorLen >= 16);
	CHECK(side, a->MaxVI >= 1 && a->MaxCQ >= 1 && a->MaxPtags >= 1 && a->MaxCQEntries >= 1);
	CHECK(side, a->MaxDescriptorsPerQueue >= 256 && a->MaxSegmentsPerDesc >= MAX_SEGMENTS);
	CHECK(side, a->MaxTransferSize >= 65472 && a->NativeMTU >= 1 && a->NativeMTU <= a->MaxTransferSize);
	CHECK(side, a->ReliabilityLevelSupport & VIP_SERVICE_UNRELIABLE);
	CHECK(side, (a->RDMAReadSupport & ~a->ReliabilityLevelSupport) == 0);
	CHECK(side, memchr(a->Name, 0, sizeof(a->Name)) != NULL && a->Name[0] != 0);
	CHECK(side, a->MaxTransferSize < 0x80000000UL && a->MaxRegisterBytes < 0x80000000UL &&
			    a->MaxCQEntries < 0x80000000UL);
	IS(side, VipQueryNic(side->nic, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipQueryNic(NULL, &side->attributes), VIP_INVALID_PARAMETER);
	IS(side, VipQueryNic(side, &side->attributes), VIP_INVALID_PARAMETER);
}

static void too_many(struct side *side)
{
	VIP_NIC_HANDLE nics[256];
	VIP_RETURN code = VIP_SUCCESS;
	int count = 0;

	while (count < 256 && (code = SEEN(side, VipOpenNic(side->nic_name, &nics[count]))) == VIP_SUCCESS)
		count++;
	while (count > 0)
		OK(side, VipCloseNic(nics[--count]));
	if (code == VIP_SUCCESS)
		skip(side, "the NIC opens 256 times");
	IS(side, code, VIP_ERROR_RESOURCE);
}

static void wait_for_ever(struct side *side)
{
	union address local = own_address(side, "never"), remote;
	VIP_VI_ATTRIBUTES attributes;
	VIP_CONN_HANDLE connection;
	VIP_RETURN code;

	code = SEEN(side, VipConnectWait(side->nic, &local.net, VIP_INFINITE, &remote.net, &attributes, &connection));
	if (code != VIP_INVALID_PARAMETER)
		IS(side, code, VIP_ERROR_RESOURCE);
}

static void *nothing(struct side *side)
{
	(void)side;
	return NULL;
}

static void closing_wakes(struct side *side)
{
	close_under(side, nothing, wait_for_ever);
}

static void closing_frees(struct side *side)
{
	VIP_NIC_HANDLE other;
	VIP_PROTECTION_HANDLE tag;
	VIP_MEM_HANDLE memory;
	VIP_CQ_HANDLE cq;
	VIP_VI_HANDLE vi;
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	char *bytes = new_memory(side, 5000, 1);
	int i;

	for (i = 0; i < 20; i++) {
		OK(side, VipOpenNic(side->nic_name, &other));
		OK(side, VipCreatePtag(other, &tag));
		OK(side, VipRegisterMem(other, bytes, 5000, NULL, &memory));
		OK(side, VipCreateCQ(other, 10, &cq));
		attributes.Ptag = tag;
		OK(side, VipCreateVi(other, &attributes, cq, cq, &vi));
		OK(side, VipCloseNic(other));
		IS(side, VipDestroyVi(vi), VIP_INVALID_PARAMETER);
		IS(side, VipDestroyCQ(cq), VIP_INVALID_PARAMETER);
	}
}

static const struct test tests[] = {
	{ "a_name_opens_again_with_another_handle", "VG:vipopennic",
	  "VipOpenNic:VIP_SUCCESS VipCloseNic:VIP_SUCCESS VipCloseNic:VIP_INVALID_PARAMETER VipQueryNic:VIP_INVALID_PARAMETER",
	  ONCE, opening, NULL },
	{ "unknown_names_are_refused", "VG:vipopennic", "VipOpenNic:VIP_INVALID_PARAMETER", ONCE, unknown_names, NULL },
	{ "probing_comes_to_an_end", "C:iometer", "", ONCE, probing_ends, NULL },
	{ "attributes_suit_programs", "HI M:m D", "VipQueryNic:VIP_SUCCESS VipQueryNic:VIP_INVALID_PARAMETER", ONCE,
	  attributes, NULL },
	{ "a_device_can_be_exhausted", "VG:vipopennic", "VipOpenNic:VIP_ERROR_RESOURCE", ONCE, too_many, NULL },
	{ "closing_ends_waits", "C:mpich-nt D", "VipCloseNic:VIP_SUCCESS VipConnectWait:VIP_ERROR_RESOURCE", ONCE,
	  closing_wakes, NULL },
	{ "closing_ends_everything_of_the_handle", "D", "VipCloseNic:VIP_SUCCESS", ONCE, closing_frees, NULL },
};

const struct group nic_group = GROUP("nic", NULL, tests);
