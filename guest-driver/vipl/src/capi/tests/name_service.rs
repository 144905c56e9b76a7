//! The name service as C programs use it.

use std::ptr::null_mut;

use crate::capi::name_service::{VipNSGetHostByAddr, VipNSGetHostByName, VipNSInit, VipNSShutdown};
use crate::capi::pointers::{Handle, InAddress, InOut, Name, OutAddress, OutString};
use crate::capi::types::VipReturn;
use crate::tests;

/// The card of the tests.
static OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[test]
fn a_look_up_touches_the_host_part_alone() {
    let (open, _card) = tests::open();
    let nic = Handle::new(open.0.value());
    // SAFETY: good pointers throughout.
    unsafe {
        assert_eq!(VipNSInit(nic, null_mut()), VipReturn::SUCCESS);
        // What is initialised may be initialised again, with whatever.
        assert_eq!(VipNSInit(nic, (&raw const OWN).cast_mut().cast()), VipReturn::SUCCESS);
        for (name, host) in [(c"localhost", OWN), (c"2:a:b:c:d:e", [2, 0xa, 0xb, 0xc, 0xd, 0xe])] {
            // The length that comes in is no capacity, and what is behind the host's bytes is the program's.
            let mut address = [0xeeu8; 40];
            let answer = VipNSGetHostByName(nic, Name::from(name), OutAddress::to(&mut address), 0);
            assert_eq!(answer, VipReturn::SUCCESS, "{name:?}");
            assert_eq!(address[..2], 6u16.to_ne_bytes());
            assert_eq!(address[2..4], [0xee; 2], "the discriminator's length");
            assert_eq!(address[4..10], host);
            assert_eq!(address[10..], [0xee; 30]);
        }
        let mut address = [0u8; 40];
        let place = OutAddress::to(&mut address);
        for (name, index) in [(c"localhost", 1), (c"no such name", 0), (c"", 0)] {
            let answer = VipNSGetHostByName(nic, Name::from(name), place, index);
            assert_eq!(answer, VipReturn::ERROR_NAMESERVICE, "{name:?} {index}");
        }
        let answer = VipNSGetHostByName(nic, Name::from(c"\xff"), place, 0);
        assert_eq!(answer, VipReturn::INVALID_PARAMETER);
        assert_eq!(VipNSGetHostByName(nic, Name::NULL, place, 0), VipReturn::INVALID_PARAMETER);
        let answer = VipNSGetHostByName(nic, Name::from(c"localhost"), OutAddress::NULL, 0);
        assert_eq!(answer, VipReturn::INVALID_PARAMETER);
        assert_eq!(address, [0; 40]);
    }
    open.close().unwrap();
}

#[test]
fn a_name_comes_with_its_length_if_there_is_room() {
    let (open, _card) = tests::open();
    let nic = Handle::new(open.0.value());
    let own_name = rustix::system::uname().nodename().to_owned();
    let own_name = own_name.to_bytes();
    let length = own_name.len() as u64;
    let address = [&[6, 0, 0xff, 0xff], &OWN[..]].concat();
    let none = [0u8, 0, 0xff, 0xff];
    let stranger = [&[6, 0, 0, 0], &[9u8; 6][..]].concat();
    // SAFETY: good pointers throughout.
    unsafe {
        assert_eq!(VipNSInit(nic, null_mut()), VipReturn::SUCCESS);
        let ask = |address: &[u8], name: &mut [u8], length: &mut u64| {
            VipNSGetHostByAddr(nic, InAddress::from(address), OutString::to(name), InOut::at(length))
        };
        // This NIC, by its address or by none.
        for address in [&address[..], &none] {
            let (mut name, mut room) = ([0xeeu8; 300], length + 1);
            assert_eq!(ask(address, &mut name, &mut room), VipReturn::SUCCESS);
            assert_eq!((room, &name[..own_name.len()]), (length, own_name));
            assert_eq!(name[own_name.len()..][..2], [0, 0xee], "a zero and no more");
            (name, room) = ([0xee; 300], length);
            assert_eq!(ask(address, &mut name, &mut room), VipReturn::ERROR_RESOURCE);
            assert_eq!((room, name), (length + 1, [0xee; 300]), "so much room it takes");
        }
        let (mut name, mut room) = ([0u8; 300], 300);
        assert_eq!(ask(&stranger, &mut name, &mut room), VipReturn::ERROR_NAMESERVICE);
        assert_eq!(ask(&[5, 0, 0, 0, 1, 2, 3, 4, 5], &mut name, &mut room), VipReturn::INVALID_PARAMETER);
        let nulls = [
            VipNSGetHostByAddr(nic, InAddress::NULL, OutString::to(&mut name), InOut::at(&mut room)),
            VipNSGetHostByAddr(nic, InAddress::from(&address), OutString::NULL, InOut::at(&mut room)),
            VipNSGetHostByAddr(nic, InAddress::from(&address), OutString::to(&mut name), InOut::NULL),
        ];
        assert_eq!(nulls, [VipReturn::INVALID_PARAMETER; 3]);
    }
    open.close().unwrap();
}

#[test]
fn before_and_after_there_is_no_service() {
    let (open, _card) = tests::open();
    let nic = Handle::new(open.0.value());
    let mut address = [0u8; 40];
    let place = OutAddress::to(&mut address);
    // SAFETY: good pointers throughout.
    unsafe {
        let look_up = || VipNSGetHostByName(nic, Name::from(c"localhost"), place, 0);
        assert_eq!(look_up(), VipReturn::ERROR_NAMESERVICE);
        assert_eq!(VipNSShutdown(nic), VipReturn::ERROR_NAMESERVICE);
        assert_eq!(VipNSInit(nic, null_mut()), VipReturn::SUCCESS);
        assert_eq!(look_up(), VipReturn::SUCCESS);
        assert_eq!(VipNSShutdown(nic), VipReturn::SUCCESS);
        assert_eq!(look_up(), VipReturn::ERROR_NAMESERVICE);
        assert_eq!(VipNSShutdown(nic), VipReturn::ERROR_NAMESERVICE);
    }
    open.close().unwrap();
}
