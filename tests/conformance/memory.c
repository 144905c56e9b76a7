/* Protection tags and registered memory. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

static VIP_PROTECTION_HANDLE new_tag(struct side *side)
{
	VIP_PROTECTION_HANDLE tag = NULL;

	OK(side, VipCreatePtag(side->nic, &tag));
	CHECK(side, tag != NULL);
	return tag;
}

static void tags(struct side *side)
{
	VIP_PROTECTION_HANDLE a = new_tag(side), b = new_tag(side);

	CHECK(side, a != b);
	OK(side, VipDestroyPtag(side->nic, a));
	IS(side, VipDestroyPtag(side->nic, a), VIP_INVALID_PARAMETER);
	OK(side, VipDestroyPtag(side->nic, b));
	IS(side, VipCreatePtag(side->nic, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipCreatePtag(NULL, &a), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyPtag(NULL, b), VIP_INVALID_PARAMETER);
	IS(side, VipDestroyPtag(side->nic, side), VIP_INVALID_PARAMETER);
}

#define TAGS 100000UL

/* A NIC may have more than it promises. */
static void too_many_tags(struct side *side)
{
	VIP_PROTECTION_HANDLE *tags = new_memory(side, TAGS * sizeof(*tags), 16), tag;
	VIP_RETURN code = VIP_SUCCESS;
	unsigned long count = 0;

	while (count < TAGS && (code = SEEN(side, VipCreatePtag(side->nic, &tags[count]))) == VIP_SUCCESS)
		count++;
	if (code == VIP_SUCCESS)
		skip(side, "the NIC has more tags than are worth a test");
	IS(side, code, VIP_ERROR_RESOURCE);
	CHECK(side, count >= side->attributes.MaxPtags);
	/* One that goes makes room. */
	OK(side, VipDestroyPtag(side->nic, tags[--count]));
	OK(side, VipCreatePtag(side->nic, &tag));
}

static void tag_in_use_by_memory(struct side *side)
{
	VIP_MEM_ATTRIBUTES attributes = { 0 };
	struct buffer buffer;

	attributes.Ptag = new_tag(side);
	buffer = new_buffer(side, 100, &attributes);
	IS(side, VipDestroyPtag(side->nic, attributes.Ptag), VIP_ERROR_RESOURCE);
	OK(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle));
	OK(side, VipDestroyPtag(side->nic, attributes.Ptag));
}

static void tag_in_use_by_vi(struct side *side)
{
	VIP_VI_ATTRIBUTES attributes = vi_attributes(side);
	VIP_VI_HANDLE vi;

	attributes.Ptag = new_tag(side);
	vi = new_vi_with(side, &attributes, NULL, NULL);
	IS(side, VipDestroyPtag(side->nic, attributes.Ptag), VIP_ERROR_RESOURCE);
	OK(side, VipDestroyVi(vi));
	OK(side, VipDestroyPtag(side->nic, attributes.Ptag));
}

/* From malloc, odd lengths, odd starts, across pages. */
static void any_range(struct side *side)
{
	static const unsigned long lengths[] = { 1, 2, 63, 4095, 4096, 4097, 70001 };
	char *bytes = new_memory(side, 80000, 1);
	VIP_MEM_HANDLE handle;
	size_t i, start;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (start = 0; start < 9; start += 4) {
			OK(side, VipRegisterMem(side->nic, bytes + start + 1, lengths[i], NULL, &handle));
			CHECK(side, handle != 0 && handle != 0xffffffff);
			OK(side, VipDeregisterMem(side->nic, bytes + start + 1, handle));
		}
}

static void twice(struct side *side)
{
	VIP_MEM_ATTRIBUTES writable = { NULL, VIP_TRUE, VIP_FALSE }, found;
	struct buffer buffer = new_buffer(side, 5000, NULL);
	VIP_MEM_HANDLE second;

	OK(side, VipRegisterMem(side->nic, buffer.bytes, 5000, &writable, &second));
	CHECK(side, second != buffer.handle);
	OK(side, VipQueryMem(side->nic, buffer.bytes, buffer.handle, &found));
	CHECK(side, !found.EnableRdmaWrite);
	OK(side, VipQueryMem(side->nic, buffer.bytes, second, &found));
	CHECK(side, found.EnableRdmaWrite);
	OK(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle));
	OK(side, VipQueryMem(side->nic, buffer.bytes, second, &found));
	OK(side, VipDeregisterMem(side->nic, buffer.bytes, second));
}

static void bad_registrations(struct side *side)
{
	char *bytes = new_memory(side, 5000, 1);
	VIP_MEM_ATTRIBUTES attributes = { 0 };
	VIP_PROTECTION_HANDLE gone = new_tag(side);
	VIP_MEM_HANDLE handle = 1;

	IS(side, VipRegisterMem(NULL, bytes, 5000, NULL, &handle), VIP_INVALID_PARAMETER);
	IS(side, VipRegisterMem(side->nic, bytes, 5000, NULL, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipRegisterMem(side->nic, NULL, 5000, NULL, &handle), VIP_INVALID_PARAMETER);
	IS(side, VipRegisterMem(side->nic, bytes, 0, NULL, &handle), VIP_INVALID_PARAMETER);
	CHECK(side, handle == 0);
	OK(side, VipDestroyPtag(side->nic, gone));
	attributes.Ptag = gone;
	IS(side, VipRegisterMem(side->nic, bytes, 5000, &attributes, &handle), VIP_INVALID_PTAG);
}

static void rdma_read_flag(struct side *side)
{
	VIP_MEM_ATTRIBUTES readable = { NULL, VIP_FALSE, VIP_TRUE };
	char *bytes = new_memory(side, 100, 1);
	VIP_MEM_HANDLE handle;

	if (side->attributes.RDMAReadSupport != 0) {
		OK(side, VipRegisterMem(side->nic, bytes, 100, &readable, &handle));
		return;
	}
	IS(side, VipRegisterMem(side->nic, bytes, 100, &readable, &handle), VIP_INVALID_RDMAREAD);
}

static void deregistering(struct side *side)
{
	struct buffer buffer = new_buffer(side, 9000, NULL);

	IS(side, VipDeregisterMem(NULL, buffer.bytes, buffer.handle), VIP_INVALID_PARAMETER);
	IS(side, VipDeregisterMem(side->nic, buffer.bytes + 1, buffer.handle), VIP_INVALID_PARAMETER);
	IS(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle + 1), VIP_INVALID_PARAMETER);
	IS(side, VipDeregisterMem(side->nic, buffer.bytes, 0), VIP_INVALID_PARAMETER);
	IS(side, VipDeregisterMem(side->nic, buffer.bytes, 0xffffffff), VIP_INVALID_PARAMETER);
	OK(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle));
	IS(side, VipDeregisterMem(side->nic, buffer.bytes, buffer.handle), VIP_INVALID_PARAMETER);
}

/* An old handle must not name a new region. */
static void stale_handles(struct side *side)
{
	char *bytes = new_memory(side, 100, 1);
	VIP_MEM_HANDLE old, handle;
	VIP_MEM_ATTRIBUTES found;
	int i;

	OK(side, VipRegisterMem(side->nic, bytes, 100, NULL, &old));
	OK(side, VipDeregisterMem(side->nic, bytes, old));
	for (i = 0; i < 100; i++) {
		OK(side, VipRegisterMem(side->nic, bytes, 100, NULL, &handle));
		CHECK(side, handle != old);
		IS(side, VipQueryMem(side->nic, bytes, old, &found), VIP_INVALID_PARAMETER);
		OK(side, VipDeregisterMem(side->nic, bytes, handle));
	}
}

static void querying(struct side *side)
{
	VIP_MEM_ATTRIBUTES attributes = { NULL, VIP_TRUE, VIP_FALSE }, found;
	struct buffer buffer;

	attributes.Ptag = new_tag(side);
	buffer = new_buffer(side, 9000, &attributes);
	OK(side, VipQueryMem(side->nic, buffer.bytes, buffer.handle, &found));
	CHECK(side, found.Ptag == attributes.Ptag && found.EnableRdmaWrite == VIP_TRUE &&
			    found.EnableRdmaRead == VIP_FALSE);
	IS(side, VipQueryMem(side->nic, buffer.bytes, buffer.handle, NULL), VIP_INVALID_PARAMETER);
	IS(side, VipQueryMem(NULL, buffer.bytes, buffer.handle, &found), VIP_INVALID_PARAMETER);
	IS(side, VipQueryMem(side->nic, buffer.bytes, buffer.handle + 1, &found), VIP_INVALID_PARAMETER);
	IS(side, VipQueryMem(side->nic, buffer.bytes + 9001, buffer.handle, &found), VIP_INVALID_PARAMETER);
}

static void another_handles_objects(struct side *side)
{
	VIP_MEM_ATTRIBUTES attributes = { 0 };
	char *bytes = new_memory(side, 100, 1);
	VIP_NIC_HANDLE other;
	VIP_MEM_HANDLE handle;

	OK(side, VipOpenNic(side->nic_name, &other));
	OK(side, VipCreatePtag(other, &attributes.Ptag));
	IS(side, VipRegisterMem(side->nic, bytes, 100, &attributes, &handle), VIP_INVALID_PTAG);
	OK(side, VipRegisterMem(other, bytes, 100, NULL, &handle));
	IS(side, VipDestroyPtag(side->nic, attributes.Ptag), VIP_INVALID_PARAMETER);
	OK(side, VipCloseNic(other));
}

static const struct test tests[] = {
	{ "tags_come_and_go", "M:m",
	  "VipCreatePtag:VIP_SUCCESS VipCreatePtag:VIP_INVALID_PARAMETER VipDestroyPtag:VIP_SUCCESS "
	  "VipDestroyPtag:VIP_INVALID_PARAMETER",
	  ONCE, tags, NULL },
	{ "tags_can_be_exhausted", "M:m", "VipCreatePtag:VIP_ERROR_RESOURCE", ONCE, too_many_tags, NULL },
	{ "a_tag_of_a_region_stays", "M:m", "VipDestroyPtag:VIP_ERROR_RESOURCE", ONCE, tag_in_use_by_memory, NULL },
	{ "a_tag_of_a_vi_stays", "M:m", "VipDestroyPtag:VIP_ERROR_RESOURCE", ONCE, tag_in_use_by_vi, NULL },
	{ "any_start_and_any_length", "C:armci C:mpich-nt", "VipRegisterMem:VIP_SUCCESS VipDeregisterMem:VIP_SUCCESS",
	  ONCE, any_range, NULL },
	{ "a_range_registers_twice", "C:armci", "VipRegisterMem:VIP_SUCCESS VipQueryMem:VIP_SUCCESS", ONCE, twice, NULL },
	{ "bad_registrations_are_refused", "M:m",
	  "VipRegisterMem:VIP_INVALID_PARAMETER VipRegisterMem:VIP_INVALID_PTAG", ONCE, bad_registrations, NULL },
	{ "the_rdma_read_flag_needs_support", "M:m", "VipRegisterMem:VIP_SUCCESS? VipRegisterMem:VIP_INVALID_RDMAREAD?", ONCE, rdma_read_flag, NULL },
	{ "deregistering_names_start_and_handle", "M:m",
	  "VipDeregisterMem:VIP_SUCCESS VipDeregisterMem:VIP_INVALID_PARAMETER", ONCE, deregistering, NULL },
	{ "an_old_handle_names_nothing", "D", "VipQueryMem:VIP_INVALID_PARAMETER", ONCE, stale_handles, NULL },
	{ "attributes_are_told", "M:m", "VipQueryMem:VIP_SUCCESS VipQueryMem:VIP_INVALID_PARAMETER", ONCE, querying,
	  NULL },
	{ "a_tag_of_another_handle_is_none", "D", "VipRegisterMem:VIP_INVALID_PTAG VipDestroyPtag:VIP_INVALID_PARAMETER",
	  ONCE, another_handles_objects, NULL },
};

const struct group memory_group = GROUP("memory", NULL, tests);
