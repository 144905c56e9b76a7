//! Handles: names of objects that can be checked without touching what they name.
//!
//! An object lives in a slot of a [`Pool`]. Slots are never freed, only reused, and a [`Key`] names a slot and one
//! use of it. Whoever comes with a key finds the slot by its number and then asks the slot, under the lock that he
//! needs anyway, whether it is still used for that key. So a lookup costs a few instructions and no write to
//! shared memory, and a stale or invented handle is refused, whatever its value.
//!
//! A key also names the process, as forks tell them apart: a child's copy of its parent's handles is stale.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::{fork, process_barrier};

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Nic = 1,
    ProtectionTag = 2,
    Vi = 3,
    CompletionQueue = 4,
    ConnectionRequest = 5,
}

/// A handle's value: a mark that no pointer of a user process has (8 bits: 0xA and the kind), the use of the slot
/// (32 bits), the process's generation (8 bits), the slot's number (16 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(NonZeroU64);

const MARK: u64 = 0xa0;
const INDEX_BITS: u32 = 16;
const GENERATION_BITS: u32 = 8;
const USE_BITS: u32 = 32;
const USE_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;
const MARK_SHIFT: u32 = USE_SHIFT + USE_BITS;

impl Key {
    fn new(kind: Kind, use_number: u32, index: u16) -> Self {
        let mark = MARK | u64::from(kind as u8);
        let generation = u64::from(fork::generation());
        let value = mark << MARK_SHIFT
            | u64::from(use_number) << USE_SHIFT
            | generation << INDEX_BITS
            | u64::from(index);
        Self(NonZeroU64::new(value).expect("the mark is not zero"))
    }

    /// The handle's value.
    pub(crate) fn value(self) -> u64 {
        self.0.get()
    }

    /// The key of a value that may be anything; `None` if it is no handle of that kind.
    fn of(kind: Kind, value: u64) -> Option<Self> {
        let mark = MARK | u64::from(kind as u8);
        NonZeroU64::new(value).filter(|value| value.get() >> MARK_SHIFT == mark).map(Self)
    }

    fn index(self) -> usize {
        (self.value() & ((1 << INDEX_BITS) - 1)) as usize
    }

    fn use_number(self) -> u32 {
        u32::try_from(self.value() >> USE_SHIFT & u64::from(u32::MAX)).unwrap_or_default()
    }

    #[inline]
    fn is_of_this_process(self) -> bool {
        self.value() >> INDEX_BITS & ((1 << GENERATION_BITS) - 1) == u64::from(fork::generation())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value())
    }
}

const CHUNK: usize = 64;
const CHUNKS: usize = 1024;
const _: () = assert!(CHUNK * CHUNKS == 1 << INDEX_BITS);

/// Slots for objects of one kind.
pub(crate) struct Pool<T> {
    kind: Kind,
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
    free: Mutex<FreeSlots>,
}

struct FreeSlots {
    /// Keys of slots that were used, longest ago first.
    used: std::collections::VecDeque<Key>,
    /// The first slot that was never used.
    fresh: usize,
}

impl<T: Default> Pool<T> {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(FreeSlots { used: std::collections::VecDeque::new(), fresh: 0 }),
        }
    }

    /// A slot for a new object, with a key that was never used; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<(Key, &T)> {
        fork::watch();
        process_barrier::prepare();
        let mut free = self.free.lock();
        let key = if free.fresh < CHUNK * CHUNKS && free.used.len() < CHUNK {
            let index = u16::try_from(free.fresh).ok()?;
            free.fresh += 1;
            Key::new(self.kind, 1, index)
        } else {
            let last = free.used.pop_front()?;
            let index = u16::try_from(last.index()).ok()?;
            Key::new(self.kind, last.use_number().checked_add(1).unwrap_or(1), index)
        };
        let chunk = self.chunks[key.index() / CHUNK]
            .get_or_init(|| std::iter::repeat_with(T::default).take(CHUNK).collect());
        Some((key, &chunk[key.index() % CHUNK]))
    }

    /// Hands back the slot of an object that has gone.
    pub(crate) fn give_back(&self, key: Key) {
        self.free.lock().used.push_back(key);
    }

    /// The slot that `key` names. It may be in use for another key by now. None if the key is another process's.
    #[inline]
    pub(crate) fn slot(&self, key: Key) -> Option<&T> {
        if !key.is_of_this_process() {
            return None;
        }
        self.chunks.get(key.index() / CHUNK)?.get().map(|chunk| &chunk[key.index() % CHUNK])
    }

    /// The key of a value that may be anything.
    #[inline]
    pub(crate) fn key(&self, value: u64) -> Option<Key> {
        Key::of(self.kind, value)
    }
}

/// A slot for an object that is looked up by cloning a reference to it: right where speed does not matter.
pub(crate) struct Shared<T>(Mutex<Option<(Key, Arc<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Shared<T> {
    pub(crate) fn get(&self, key: Key) -> Option<Arc<T>> {
        self.0.lock().as_ref().filter(|(owner, _)| *owner == key).map(|(_, object)| Arc::clone(object))
    }

    pub(crate) fn put(&self, key: Key, object: Arc<T>) {
        *self.0.lock() = Some((key, object));
    }

    /// Takes the object out; for one caller only.
    pub(crate) fn take(&self, key: Key) -> Option<Arc<T>> {
        self.0.lock().take_if(|(owner, _)| *owner == key).map(|(_, object)| object)
    }
}

impl<T> Pool<Shared<T>> {
    /// Puts a new object into a slot.
    pub(crate) fn insert(&self, object: Arc<T>) -> Option<Key> {
        let (key, slot) = self.take()?;
        slot.put(key, object);
        Some(key)
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<T>> {
        self.slot(key)?.get(key)
    }

    /// Ends the use of the slot; for one caller only.
    pub(crate) fn remove(&self, key: Key) -> Option<Arc<T>> {
        let object = self.slot(key)?.take(key)?;
        self.give_back(key);
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static POOL: Pool<Shared<u32>> = Pool::new(Kind::ConnectionRequest);

    #[test]
    fn a_key_ends_with_its_object_though_the_slot_is_reused() {
        let pool: Pool<Shared<u32>> = Pool::new(Kind::Nic);
        let first = pool.insert(Arc::new(7)).unwrap();
        assert_eq!(pool.get(first).as_deref(), Some(&7));
        assert_eq!(pool.remove(first).as_deref(), Some(&7));
        assert!(pool.remove(first).is_none());
        let keys: Vec<Key> = (0..200)
            .map(|n| {
                let key = pool.insert(Arc::new(n)).unwrap();
                pool.remove(key);
                key
            })
            .collect();
        assert!(keys.iter().all(|key| pool.get(*key).is_none()));
        assert!(keys.iter().any(|key| key.index() == first.index()), "the slot was used again");
        assert!(keys.iter().collect::<std::collections::HashSet<_>>().len() == keys.len());
    }

    #[test]
    fn a_full_pool_says_so() {
        let pool: Pool<Shared<()>> = Pool::new(Kind::Nic);
        let object = Arc::new(());
        let keys: Vec<Key> = std::iter::from_fn(|| pool.insert(Arc::clone(&object))).collect();
        assert_eq!(keys.len(), CHUNK * CHUNKS);
        pool.remove(keys[9]);
        assert!(pool.insert(object).is_some());
    }

    proptest! {
        #[test]
        fn no_invented_value_names_anything(value: u64) {
            let key = POOL.insert(Arc::new(1)).unwrap();
            if let Some(found) = POOL.key(value).filter(|found| *found != key) {
                prop_assert!(POOL.get(found).is_none());
            }
            prop_assert!(POOL.key(key.value() ^ (1 << (value % 64))).is_none_or(|near| POOL.get(near).is_none()));
            POOL.remove(key);
        }
    }
}
