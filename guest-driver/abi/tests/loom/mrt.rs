//! Changing a region's attributes while the card reads its MRT entry.

use std::array::from_fn;
use std::sync::Arc;

use loom::thread;
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE, MRT_ENTRY_WORDS, MrtEntry, MrtSlot};
use vianic_abi::sync::Atomic as _;

use crate::atomics::Word64;
use crate::{Fenced, explore};

const HANDLE: u32 = 0x10_0007;
const OLD: (u32, u16) = (1, ACCESS_RDMA_WRITE);
const NEW: (u32, u16) = (2, ACCESS_RDMA_READ);

type Words = [Word64; MRT_ENTRY_WORDS];

fn entry((ptag, access): (u32, u16)) -> Arc<Words> {
    let entry = MrtEntry { handle: HANDLE, ptag, access, context: 3, page_shift: 12, ..MrtEntry::default() };
    let words: [u64; MRT_ENTRY_WORDS] = zerocopy::transmute!(entry);
    let shared: Words = from_fn(|_| Word64::default());
    for (shared, word) in shared.iter().zip(words) {
        shared.store(word, std::sync::atomic::Ordering::Relaxed);
    }
    Arc::new(shared)
}

/// Whether what was read may be used: a tag with no more than what it ever allowed.
fn is_permitted(found: &MrtEntry) -> bool {
    (found.handle, found.context, found.page_shift) == (HANDLE, 3, 12)
        && [OLD, NEW].iter().any(|(ptag, access)| found.ptag == *ptag && found.access & !access == 0)
}

#[test]
fn no_tag_is_ever_seen_with_permissions_that_it_did_not_have() {
    explore(3, || {
        let words = entry(OLD);
        let changer = thread::spawn({
            let words = Arc::clone(&words);
            move || MrtSlot::<Fenced>::new(&words).change(NEW.0, NEW.1)
        });
        if let Some(found) = MrtSlot::<Fenced>::new(&words).copy(HANDLE) {
            assert!(is_permitted(&found), "{found:?}");
        }
        changer.join().expect("the changer ends");
        let found = MrtSlot::<Fenced>::new(&words).copy(HANDLE).expect("nobody changes it any more");
        assert_eq!((found.ptag, found.access), NEW);
    });
}

/// Shows that the model would find a change in the wrong order.
#[test]
#[should_panic(expected = "mixed")]
fn a_change_without_the_step_between_is_found() {
    explore(3, || {
        let words = entry(OLD);
        let changer = thread::spawn({
            let words = Arc::clone(&words);
            move || {
                let new = entry(NEW);
                for i in [1, 0] {
                    let word = new[i].load(std::sync::atomic::Ordering::Relaxed);
                    words[i].store(word, std::sync::atomic::Ordering::Release);
                }
            }
        });
        if let Some(found) = MrtSlot::<Fenced>::new(&words).copy(HANDLE) {
            assert!(is_permitted(&found), "mixed: {found:?}");
        }
        changer.join().expect("the changer ends");
    });
}
