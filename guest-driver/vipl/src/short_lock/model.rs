//! Explores the interleavings of [`Bias`], over loom's atomics, with both halves of the barrier a full fence. Two threads that are in
//! together fail loom's own check of the cell; one that nobody wakes from is a deadlock, which loom reports.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use vianic_abi::sync::{Atomic as _, Atomics};

use super::bias::{Barrier, Bias, FRESH, Left, Turn};

#[path = "../../../abi/tests/loom/atomics.rs"]
mod atomics;

use atomics::{Fenced, Unfenced};

impl Barrier for Fenced {
    type Atomics = Self;

    fn light() {
        Self::fence();
    }

    fn heavy() {
        Self::fence();
    }

    fn is_light() -> bool {
        true
    }
}

/// Shows that the model finds what the barrier prevents.
impl Barrier for Unfenced {
    type Atomics = Self;

    fn light() {}

    fn heavy() {}

    fn is_light() -> bool {
        true
    }
}

/// As the short lock, with loom's mutex for the shared one, and a condition for the futex.
struct Model<B: Barrier> {
    bias: Bias<B>,
    shared: Mutex<()>,
    futex: Mutex<()>,
    woken: Condvar,
    value: UnsafeCell<u32>,
    /// Written by whoever touches the value: loom looks for other orders of two threads where both write to an atomic, and so for one touching
    /// it in the middle of the other's turn. Cells alone, and atomics that a thread has just read, do not make it.
    touched: <B::Atomics as Atomics>::U32,
}

#[expect(unsafe_code, reason = "what is shown is that the lock makes it safe")]
// SAFETY: loom says so if two threads are at the value at once.
unsafe impl<B: Barrier> Sync for Model<B> {}

impl<B: Barrier> Model<B>
where
    <B::Atomics as Atomics>::U32: Default,
    <B::Atomics as Atomics>::U64: Default,
{
    fn new() -> Self {
        let owner = <B::Atomics as Atomics>::U64::default();
        owner.store(FRESH, Relaxed);
        Self {
            bias: Bias::new(owner, Default::default()),
            shared: Mutex::new(()),
            futex: Mutex::new(()),
            woken: Condvar::new(),
            value: UnsafeCell::new(0),
            touched: Default::default(),
        }
    }

    /// Adds one under the lock, as thread `me`.
    fn add(&self, me: u64) {
        if let Err(left) = self.bias.enter(me) {
            self.tell(left);
            let shared = self.shared.lock().expect("nobody panics");
            loop {
                match self.bias.turn(me) {
                    Turn::Inside => {
                        self.touch();
                        assert_eq!(self.bias.leave(), Left::Nothing, "the shared lock is not unlocked");
                        return;
                    }
                    Turn::Owned => break,
                    Turn::OwnerIsInside => self.wait_for_owner(),
                }
            }
            drop(shared);
        }
        self.touch();
        let left = self.bias.leave();
        assert_ne!(left, Left::Nothing, "a shared lock is unlocked that is somebody else's");
        self.tell(left);
    }

    #[expect(unsafe_code, reason = "as above")]
    fn touch(&self) {
        self.touched.store(1, Relaxed);
        // SAFETY: as above.
        self.value.with_mut(|value| unsafe { *value += 1 });
    }

    fn wait_for_owner(&self) {
        let mut futex = self.futex.lock().expect("nobody panics");
        while self.bias.inside().load(Relaxed) == 1 {
            futex = self.woken.wait(futex).expect("nobody panics");
        }
    }

    fn tell(&self, left: Left) {
        if left == Left::Awaited {
            let _futex = self.futex.lock().expect("nobody panics");
            self.woken.notify_one();
        }
    }
}

/// The owner-to-be takes the lock `owners` times, and a second thread `others` times.
fn explore<B: Barrier + 'static>(owners: u32, others: u32)
where
    <B::Atomics as Atomics>::U32: Default,
    <B::Atomics as Atomics>::U64: Default,
{
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let model = Arc::new(Model::<B>::new());
        let owner = thread::spawn({
            let model = Arc::clone(&model);
            move || (0..owners).for_each(|_| model.add(8))
        });
        (0..others).for_each(|_| model.add(16));
        owner.join().expect("the owner ends");
        model.add(16);
        #[expect(unsafe_code, reason = "as above")]
        // SAFETY: as above.
        let value = model.value.with(|value| unsafe { *value });
        assert_eq!(value, owners + others + 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "a model is as good without")]
fn an_owner_and_whoever_revokes_are_never_in_together_and_nobody_waits_for_ever() {
    explore::<Fenced>(3, 1);
    explore::<Fenced>(2, 2);
}

#[test]
#[cfg_attr(miri, ignore = "a model is as good without")]
#[should_panic(expected = "deadlock")]
fn without_the_barrier_they_do() {
    explore::<Unfenced>(3, 1);
}
