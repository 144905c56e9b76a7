//! An entry of a shared queue that its sequence word makes valid: what Post_Array and MCQ are made of.
//!
//! The entry is N words of 64 bits. The low half of word 0 is the sequence word: an entry is valid when it equals the entry's
//! index in the queue's endless sequence. It is stored last, *release*, and loaded first, *acquire*, so who sees it sees the
//! other words.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{Atomic, Atomics, Native};

/// An entry of `N` words, as both sides read and write them.
#[derive(Debug)]
#[repr(C)]
pub struct Slot<const N: usize, A: Atomics = Native> {
    words: [A::U64; N],
}

impl<const N: usize, A: Atomics> Slot<N, A> {
    /// A slot of the given words; the model checker's way to make one.
    pub fn new(words: [A::U64; N]) -> Self {
        Self { words }
    }

    /// Stores `words` as entry `index`: all words, then the one that makes it valid.
    #[inline(always)]
    pub(crate) fn publish(&self, index: u32, words: &[u64; N]) {
        for (shared, word) in self.words[1..].iter().zip(&words[1..]) {
            shared.store(*word, Relaxed);
        }
        self.words[0].store((words[0] & !u64::from(u32::MAX)) | u64::from(index), Release);
    }

    /// As [`publish`](Self::publish), then [fences](Atomics::fence).
    #[inline(always)]
    pub(crate) fn publish_and_fence(&self, index: u32, words: &[u64; N]) {
        for (shared, word) in self.words[1..].iter().zip(&words[1..]) {
            shared.store(*word, Relaxed);
        }
        A::store_and_fence(&self.words[0], (words[0] & !u64::from(u32::MAX)) | u64::from(index));
    }

    /// Whether the slot holds entry `index`, filled.
    #[inline(always)]
    pub(crate) fn is_valid(&self, index: u32) -> bool {
        sequence_of(self.words[0].load(Acquire)) == index
    }

    /// Copies entry `index` if it is there: once, so that what is validated later is what is used.
    #[inline(always)]
    pub(crate) fn copy(&self, index: u32) -> Option<[u64; N]> {
        let mut words = [0; N];
        self.copy_to(index, &mut words).then_some(words)
    }

    /// As [`copy`](Self::copy), to where the entry is wanted. Whether it is there.
    #[inline(always)]
    pub(crate) fn copy_to(&self, index: u32, words: &mut [u64; N]) -> bool {
        let head = self.words[0].load(Acquire);
        if sequence_of(head) != index {
            return false;
        }
        words[0] = head;
        for (word, shared) in words[1..].iter_mut().zip(&self.words[1..]) {
            *word = shared.load(Relaxed);
        }
        true
    }
}

#[inline(always)]
fn sequence_of(head: u64) -> u32 {
    let [sequence, _rest]: [u32; 2] = zerocopy::transmute!(head);
    sequence
}
