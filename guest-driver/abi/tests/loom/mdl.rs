//! Memory: a Kernel Agent that registers and deregisters against a card that looks regions up, copies to them, forgets them and
//! lets go of them. docs/memory.md names the obligations that these models discharge.

use std::array::from_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::thread;
use vianic_abi::mdl::{Drainer, Forget, Full, Inserter, Insertion, Mdl};
use vianic_abi::mrt::{MRT_ENTRY_WORDS, MrtEntry, MrtSlot, handle};
use vianic_abi::sync::Atomic as _;

use crate::atomics::{Word32, Word64};
use crate::wake::Wake;
use crate::{Fenced, explore};

/// What the Kernel Agent and the card share, and the pages of two regions.
struct Shared {
    mrt_entry: [Word64; MRT_ENTRY_WORDS],
    entries: Vec<Word32>,
    insert: Word32,
    drained: Word32,
    /// 1 once the page belongs to somebody else.
    unpinned: [Word32; 2],
    /// A handle that a program has posted.
    posted: Word32,
    /// DRAIN_MDL, to a card that sleeps.
    command: Wake,
    /// The card has let go of something.
    has_let_go: Wake,
}

impl Shared {
    fn new(entries: usize) -> Arc<Self> {
        Arc::new(Self {
            mrt_entry: from_fn(|_| Word64::default()),
            entries: (0..entries).map(|_| Word32::default()).collect(),
            insert: Word32::default(),
            drained: Word32::default(),
            unpinned: from_fn(|_| Word32::default()),
            posted: Word32::default(),
            command: Wake::new(),
            has_let_go: Wake::new(),
        })
    }

    fn mdl(&self) -> Mdl<'_, Fenced> {
        Mdl::new(&self.entries, &self.insert, &self.drained)
    }

    fn slot(&self) -> MrtSlot<'_, Fenced> {
        MrtSlot::new(&self.mrt_entry)
    }

    /// Enters region `number`, whose page is the one of that number, at index 0.
    fn enter(&self, number: u32) -> u32 {
        let region = handle(0, number + 1);
        // Every word tells whose entry this is.
        let mark = u64::from(number);
        let entry = MrtEntry {
            handle: region,
            virtual_address: mark,
            length: mark,
            page_count: mark,
            page_directory: mark,
            pages: [mark; 10],
            ..MrtEntry::default()
        };
        self.slot().enter(&entry);
        region
    }

    fn deregister(&self, inserter: &mut Inserter, region: u32) -> Result<Insertion, Full> {
        self.slot().retire();
        inserter.insert(self.mdl(), region)
    }
}

/// What a card may get wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Card {
    Right,
    /// It says that it has let go as soon as it has forgotten.
    LetsGoAtOnce,
    /// It looks into its shadow first and at the list afterwards.
    TrustsFirst,
}

/// The card, with a shadow of one entry.
struct Shadow {
    card: Card,
    drainer: Drainer,
    entry: Option<MrtEntry>,
    /// It has copied to an unpinned page.
    trespassed: bool,
}

impl Shadow {
    fn new(card: Card) -> Self {
        Self { card, drainer: Drainer::new(), entry: None, trespassed: false }
    }

    fn forget(&mut self, shared: &Shared) {
        let Self { card, drainer, entry, .. } = self;
        drainer.forget(shared.mdl(), |what| match what {
            Forget::Handle(region) => *entry = entry.filter(|entry| entry.handle != region),
            Forget::Everything => *entry = None,
        });
        if *card == Card::LetsGoAtOnce {
            self.let_go(shared);
        }
    }

    /// The page of `region`, if that is registered.
    fn look_up(&mut self, shared: &Shared, region: u32) -> Option<u64> {
        let known = self.entry.filter(|entry| entry.handle == region);
        self.forget(shared);
        let hit = match self.card {
            Card::TrustsFirst => known,
            _ => self.entry.filter(|entry| entry.handle == region),
        };
        let entry = hit.or_else(|| shared.slot().copy(region))?;
        self.entry = Some(entry);
        let marks =
            [entry.virtual_address, entry.length, entry.page_count, entry.page_directory, entry.pages[9]];
        let expected = u64::from(region >> 20) - 1;
        assert_eq!(marks, [expected; 5], "a handle reached another region");
        Some(expected)
    }

    /// A message with two segments in the region: both are looked up, then the bytes are copied.
    fn message(&mut self, shared: &Shared, region: u32) {
        let pages = [self.look_up(shared, region), self.look_up(shared, region)];
        for page in pages.into_iter().flatten() {
            let page = usize::try_from(page).expect("small");
            self.trespassed |= shared.unpinned[page].load(Relaxed) != 0;
        }
        // Nothing of the message is in use any more.
        self.let_go(shared);
    }

    fn idle(&mut self, shared: &Shared) {
        self.forget(shared);
        self.let_go(shared);
    }

    fn let_go(&mut self, shared: &Shared) {
        self.drainer.let_go(shared.mdl());
        if self.entry.is_none() {
            shared.has_let_go.wake();
        }
    }
}

/// Starts a card that has a message for a region, and then does what `then` says.
fn run_card(
    card: Card,
    then: impl FnOnce(&mut Shadow, &Shared) + Send + 'static,
) -> (Arc<Shared>, u32, thread::JoinHandle<Shadow>) {
    let shared = Shared::new(2);
    let region = shared.enter(0);
    let nic = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let mut shadow = Shadow::new(card);
            shadow.message(&shared, region);
            then(&mut shadow, &shared);
            shadow
        })
    };
    (shared, region, nic)
}

/// When the Kernel Agent unpins the pages and uses the index again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    WhenLetGo,
    AtOnce,
}

/// A program deregisters a region that the card still has messages for. Its page gets another owner, its index another region,
/// as soon as they may; that they may in the end, the card having been asked, is what keeps this from a deadlock.
fn deregister_under_traffic(card: Card, reuse: Reuse) {
    let (shared, region, nic) = run_card(card, |shadow, shared| {
        shared.command.sleep();
        shadow.idle(shared);
    });
    let mut inserter = Inserter::new();
    let insertion = shared.deregister(&mut inserter, region).expect("room");
    if reuse == Reuse::AtOnce {
        shared.enter(1);
    }
    shared.command.wake();
    while !inserter.has_let_go(shared.mdl(), insertion) {
        shared.has_let_go.sleep();
    }
    shared.unpinned[0].store(1, Relaxed);
    if reuse == Reuse::WhenLetGo {
        shared.enter(1);
    }
    let mut shadow = nic.join().expect("the card ends");
    assert!(!shadow.trespassed, "the card copies to an unpinned page");
    assert_eq!(shadow.look_up(&shared, region), None, "the old handle still works");
}

#[test]
fn the_card_touches_no_unpinned_page_and_lets_go_of_every_one() {
    explore(2, || deregister_under_traffic(Card::Right, Reuse::WhenLetGo));
}

#[test]
#[should_panic(expected = "the card copies to an unpinned page")]
fn a_card_that_lets_go_when_it_has_forgotten_touches_an_unpinned_page() {
    explore(2, || deregister_under_traffic(Card::LetsGoAtOnce, Reuse::WhenLetGo));
}

#[test]
#[should_panic(expected = "a handle reached another region")]
fn an_index_used_again_too_early_lets_an_old_handle_reach_a_new_region() {
    explore(2, || deregister_under_traffic(Card::Right, Reuse::AtOnce));
}

/// A program deregisters a region that is in the card's shadow and then names its handle in a descriptor.
fn post_after_deregistration(card: Card) {
    let (shared, region, nic) = run_card(card, |shadow, shared| {
        let posted = shared.posted.load(Acquire);
        if posted != 0 {
            assert_eq!(shadow.look_up(shared, posted), None, "the card trusts what is deregistered");
        }
    });
    shared.deregister(&mut Inserter::new(), region).expect("room");
    shared.posted.store(region, Release);
    nic.join().expect("the card ends");
}

#[test]
fn a_handle_that_is_posted_after_its_deregistration_is_refused() {
    explore(2, || post_after_deregistration(Card::Right));
}

#[test]
#[should_panic(expected = "the card trusts what is deregistered")]
fn a_card_that_trusts_its_shadow_before_it_looks_at_the_list_accepts_it() {
    explore(2, || post_after_deregistration(Card::TrustsFirst));
}

/// The list is full: the Kernel Agent has the card drain it, and there is room.
#[test]
fn a_full_list_is_drained_on_demand_and_loses_no_handle() {
    explore(2, || {
        let shared = Shared::new(1);
        let nic = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut drainer = Drainer::new();
                let mut forgotten = Vec::new();
                for _ in 0..2 {
                    shared.command.sleep();
                    drainer.forget(shared.mdl(), |what| forgotten.push(what));
                    drainer.let_go(shared.mdl());
                    shared.has_let_go.wake();
                }
                forgotten
            })
        };
        let mut inserter = Inserter::new();
        let drain = || {
            shared.command.wake();
            shared.has_let_go.sleep();
        };
        inserter.insert(shared.mdl(), 5).expect("room");
        assert_eq!(inserter.insert(shared.mdl(), 6), Err(Full));
        drain();
        let second = inserter.insert(shared.mdl(), 6).expect("a drained list has room");
        drain();
        assert!(inserter.has_let_go(shared.mdl(), second));
        assert_eq!(nic.join().expect("the card ends"), [Forget::Handle(5), Forget::Handle(6)]);
    });
}
