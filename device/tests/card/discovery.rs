//! Finding the NICs of the fabric.

use crate::harness::{Fabric, RAM, address};
use vianic_abi::command::{Discover, NicList, Opcode};
use vianic_abi::status::Status;
use vianic_device::vito::frame::NicAddress;

fn discover(fabric: &mut Fabric, port: usize, first: u32) -> (u32, Vec<NicAddress>) {
    let list = fabric.guests[port].allocate(size_of::<NicList>());
    let parameters = Discover { first, list, ..Discover::default() };
    assert_eq!(fabric.command(port, Opcode::DISCOVER, parameters), Status::SUCCESS);
    let list: NicList = fabric.guests[port].memory.read(list).expect("in RAM");
    let nics = list.nics.iter().map(|entry| NicAddress(entry.address));
    (list.total, nics.take(usize::try_from(list.count).expect("64 bit")).collect())
}

#[test]
fn a_nic_is_on_the_fabric_while_its_driver_is_attached() {
    let mut fabric = Fabric::new(3);
    assert_eq!(discover(&mut fabric, 1, 0), (3, vec![address(1), address(2), address(3)]));
    assert_eq!(discover(&mut fabric, 1, 1), (3, vec![address(2), address(3)]));
    assert_eq!(discover(&mut fabric, 1, u32::MAX), (3, vec![]));
    fabric.switch.pause(2);
    assert_eq!(discover(&mut fabric, 1, 0).0, 3, "a stopped guest is there");
    fabric.switch.remove(0);
    assert_eq!(discover(&mut fabric, 1, 0), (2, vec![address(2), address(3)]));
    fabric.switch.remove(2);
    assert_eq!(discover(&mut fabric, 1, 0), (1, vec![address(2)]));
}

#[test]
fn a_list_outside_of_memory_is_refused() {
    let mut fabric = Fabric::new(1);
    for list in [RAM as u64 - 8, u64::MAX, 0x7fff_ffff_f000] {
        let parameters = Discover { list, ..Discover::default() };
        assert_eq!(fabric.command(0, Opcode::DISCOVER, parameters), Status::INVALID_PARAMETER);
    }
}
