//! Where the calling thread's stack is.
#![expect(unsafe_code, reason = "pthread calls")]

use std::cell::OnceCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

/// The calling thread's stack, or nothing if the C library cannot tell.
pub(super) fn of_this_thread() -> Option<Range<usize>> {
    thread_local! {
        /// For the first thread of a process the C library reads all of `/proc/self/maps`.
        static KNOWN: OnceCell<Option<Range<usize>>> = const { OnceCell::new() };
    }
    KNOWN.with(|known| known.get_or_init(ask).clone())
}

fn ask() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the call fills the attributes in when it returns 0.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut base, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the attributes were filled in, are read once and then destroyed.
    let known = unsafe {
        let known = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut base, &raw mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        known
    };
    known.then(|| base.addr()..base.addr() + size)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_local_variable_is_on_it() {
        let local = 0_u8;
        let stack = super::of_this_thread().expect("a stack");
        assert!(stack.contains(&std::ptr::from_ref(&local).addr()));
    }
}
