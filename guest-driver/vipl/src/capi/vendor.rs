//! Functions of one vendor, Giganet, beyond the user data of [`vi`](super::vi).
//!
//! His tags tell completions of a queue apart by a number, of which nothing in the interface says whose it is: no call gives a
//! VI or a message a tag. So a queue has no completions with a tag, and nothing to associate an event with.

use crate::capi::cq::cq;
use crate::capi::entry_points;
use crate::capi::pointers::{Handle, Out};
use crate::capi::types::{VipBoolean, VipReturn, VipUlong};
use crate::capi::vi::vi;
use crate::error::Error;

entry_points! {
    fn VipAddTagCQ(CQHandle: Handle, Event: Out<Handle>, _Tag: VipUlong, _Priority: VipUlong) {
        cq(CQHandle)?.object()?;
        Event.required()?;
        Err(Error::NotSupported)
    }

    fn VipRemoveTagCQ(CQHandle: Handle, _Event: Handle, _Tag: VipUlong) {
        cq(CQHandle)?.object()?;
        Err(Error::NotSupported)
    }

    /// The card takes what is posted when it is posted: there never are deferred sends.
    fn VipPostDeferredSends(
        ViHandle: Handle,
        _EnableInterrupt: VipBoolean,
        SendsDeferred: Out<VipBoolean>,
    ) {
        vi(ViHandle)?.object()?;
        SendsDeferred.required()?.set(0);
        Ok(VipReturn::SUCCESS)
    }
}
