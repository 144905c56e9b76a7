//! VipQuerySystemManagementInfo.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::capi::management::{SMI_AUTODISCOVERY, VipQuerySystemManagementInfo};
use crate::capi::pointers::{Handle, OutAddresses};
use crate::capi::types::{VipAutodiscoveryList, VipReturn};
use crate::tests;

/// Asks, with room for as many addresses as there are places.
fn ask(nic: Handle, places: &mut [[u8; 10]]) -> (VipReturn, u64) {
    let pointers: Vec<*mut u8> = places.iter_mut().map(|place| place.as_mut_ptr()).collect();
    let mut list = VipAutodiscoveryList {
        number_of_hops: 1,
        ad_addr_array: OutAddresses::from(&pointers),
        num_ad_addrs: pointers.len().try_into().unwrap(),
    };
    let list_pointer = (&raw mut list).cast::<c_void>();
    // SAFETY: a good list.
    let answer = unsafe { VipQuerySystemManagementInfo(nic, SMI_AUTODISCOVERY, list_pointer) };
    (answer, list.num_ad_addrs)
}

#[test]
fn the_nics_of_the_fabric_are_written_as_far_as_there_is_room() {
    let (open, card) = tests::open();
    let nic = Handle::new(open.0.value());
    for (there, room) in [(1, 1), (3, 5), (3, 2), (3, 0), (200, 200), (200, 70)] {
        card.set_fabric(there);
        let mut places = vec![[0xaa_u8; 10]; room];
        assert_eq!(ask(nic, &mut places), (VipReturn::SUCCESS, there.into()));
        for (n, place) in (0..).zip(&places) {
            let expected = if n < there { [6, 0, 0, 0, 2, 0, 0, 0, 0, n] } else { [0xaa; 10] };
            assert_eq!(*place, expected, "{n} of {there} with room for {room}");
        }
    }
    open.close().unwrap();
}

#[test]
fn what_is_no_question_is_an_invalid_parameter() {
    let (open, card) = tests::open();
    card.set_fabric(2);
    let nic = Handle::new(open.0.value());
    let mut place = [0_u8; 10];
    let pointers = [place.as_mut_ptr(), null_mut()];
    let mut list = VipAutodiscoveryList {
        number_of_hops: 1,
        ad_addr_array: OutAddresses::from(&pointers),
        num_ad_addrs: 2,
    };
    let mut without = VipAutodiscoveryList { ad_addr_array: OutAddresses::NULL, num_ad_addrs: 1, ..list };
    let (list, without) = ((&raw mut list).cast::<c_void>(), (&raw mut without).cast::<c_void>());
    let mut empty = [];
    assert_eq!(ask(Handle::new(5), &mut empty).0, VipReturn::INVALID_PARAMETER);
    // SAFETY: null, or good lists.
    let answers = unsafe {
        [
            VipQuerySystemManagementInfo(nic, 0, list),
            VipQuerySystemManagementInfo(nic, 2, list),
            VipQuerySystemManagementInfo(nic, SMI_AUTODISCOVERY, null_mut()),
            VipQuerySystemManagementInfo(nic, SMI_AUTODISCOVERY, list),
            VipQuerySystemManagementInfo(nic, SMI_AUTODISCOVERY, without),
        ]
    };
    assert_eq!(answers, [VipReturn::INVALID_PARAMETER; 5]);
    assert_eq!(place, [0; 10], "nothing is written");
    open.close().unwrap();
}
