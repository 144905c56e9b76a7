//! Handles after their objects.

use super::*;
use crate::error::Error;
use crate::work_queue::Refusal;

#[test]
fn a_handle_does_not_name_the_next_object_in_its_place() {
    let (nic, card) = open();
    let (first, _) = connected(nic, &card, None, None);
    first.disconnect().unwrap();
    first.destroy().unwrap();
    let context = nic.context().unwrap();
    let mut descriptor = TestDescriptor::new(0);
    for _ in 0..200 {
        let next = ViId::create(&context, &ATTRIBUTES, None, None).unwrap();
        assert_ne!(next, first);
        assert!(matches!(post(first, Queue::Receive, &mut descriptor), Err(Error::InvalidHandle(_))));
        assert_eq!(first.done(Queue::Send).err(), Some(Refusal::NoVi));
        assert!(matches!(first.destroy(), Err(Error::InvalidHandle(_))));
        next.destroy().unwrap();
    }
    drop(context);
    nic.close().unwrap();
}

#[test]
fn closing_a_nic_ends_its_handles() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, Some(cq), None);
    let tag = crate::TagId::create(&nic.context().unwrap()).unwrap();
    let (other, other_card) = open();
    let (stays, _) = connected(other, &other_card, None, None);
    nic.close().unwrap();
    assert!(matches!(nic.close(), Err(Error::InvalidHandle("NIC"))));
    assert!(matches!(vi.query(), Err(Error::InvalidHandle(_))));
    assert!(matches!(cq.poll(), Err(Error::InvalidHandle(_))));
    assert!(matches!(tag.number_in(&other.context().unwrap()), Err(Error::InvalidProtectionTag)));
    assert_eq!(card.objects(), (0, 0, 0));
    assert_eq!(Arc::strong_count(&card), 1, "nothing keeps the context open");
    stays.query().unwrap();
    other.close().unwrap();
}
