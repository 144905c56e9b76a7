//! One vendor's functions.

use crate::capi::pointers::{Handle, Out};
use crate::capi::types::VipReturn;
use crate::capi::vendor::{VipAddTagCQ, VipPostDeferredSends, VipRemoveTagCQ};
use crate::cq::CqId;
use crate::tests;

#[test]
fn no_send_is_ever_deferred() {
    let (open, card) = tests::open();
    let (connected, _) = tests::connected(open, &card, None, None);
    let vi = Handle::new(connected.0.value());
    let mut deferred = 1;
    // SAFETY: good pointers or null.
    unsafe {
        assert_eq!(VipPostDeferredSends(vi, 1, Out::NULL), VipReturn::INVALID_PARAMETER);
        assert_eq!(VipPostDeferredSends(vi, 1, Out::to(&mut deferred)), VipReturn::SUCCESS);
    }
    assert_eq!(deferred, 0);
    open.close().unwrap();
}

#[test]
fn tags_are_not_supported_on_queues_that_exist() {
    let (open, _card) = tests::open();
    let cq_id = CqId::create(&open.context().unwrap(), 1).unwrap();
    let cq = Handle::new(cq_id.0.value());
    let mut event = Handle::NULL;
    // SAFETY: good pointers or null.
    unsafe {
        assert_eq!(VipAddTagCQ(cq, Out::NULL, 1, 1), VipReturn::INVALID_PARAMETER);
        assert_eq!(VipAddTagCQ(cq, Out::to(&mut event), 1, 1), VipReturn::ERROR_NOT_SUPPORTED);
        assert_eq!(VipRemoveTagCQ(cq, event, 1), VipReturn::ERROR_NOT_SUPPORTED);
        cq_id.destroy().unwrap();
        assert_eq!(VipRemoveTagCQ(cq, event, 1), VipReturn::INVALID_PARAMETER);
    }
    open.close().unwrap();
}
