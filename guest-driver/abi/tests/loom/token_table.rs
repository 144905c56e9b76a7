//! The Token Table: posters against a NIC that polls, falls asleep and is woken by the doorbell.

use std::array::from_fn;
use std::sync::Arc;

use loom::thread;
use vianic_abi::sync::{Atomics, CacheLine};
use vianic_abi::token::{Token, TokenKind};
use vianic_abi::token_table::{Acceptor, Doorbell, Header, PostError, Poster, Slot, TokenTable};

use crate::atomics::{Word32, Word64};
use crate::wake::{Progress, Wake};
use crate::{Fenced, Unfenced, explore};

struct Shared<A: Atomics> {
    header: Header<A>,
    slots: Vec<Slot<A>>,
    poster: Poster<A::U32>,
    doorbell: Wake,
    room: Progress,
}

impl<A: Atomics<U32 = Word32, U64 = Word64>> Shared<A> {
    fn new(entries: usize) -> Arc<Self> {
        Arc::new(Self {
            header: Header {
                last_inserted_entry: CacheLine(Word32::default()),
                last_accepted_entry: CacheLine(Word32::default()),
                nic_state: CacheLine(Word32::default()),
                reserved: CacheLine(Word32::default()),
            },
            slots: (0..entries).map(|_| Slot::new(from_fn(|_| Word64::default()))).collect(),
            poster: Poster::new(Word32::default()),
            doorbell: Wake::new(),
            room: Progress::new(),
        })
    }

    fn table(&self) -> TokenTable<'_, A> {
        TokenTable::new(&self.header, &self.slots)
    }

    /// A poster: posts tokens number 0 to `count`, and rings when told to.
    fn post(&self, poster: u16, count: u64) {
        let mut seen = 0;
        for number in 0..count {
            let posted = self.poster.post(self.table(), &token(poster, number), || {
                self.room.wait_beyond(&mut seen);
                true
            });
            if posted.expect("the table stays open") == Doorbell::Ring {
                self.doorbell.wake();
            }
        }
    }

    /// The NIC: takes entries while there are any, then falls asleep, until it has had `count`.
    fn serve(&self, count: usize) -> Vec<Token> {
        let mut acceptor = Acceptor::new();
        let mut taken = Vec::new();
        while taken.len() < count {
            match acceptor.next(self.table()) {
                Some(token) => {
                    taken.push(token);
                    acceptor.publish(self.table());
                    self.room.step();
                }
                None if acceptor.fall_asleep(self.table()) => {
                    self.doorbell.sleep();
                    acceptor.start_polling(self.table());
                }
                None => {}
            }
        }
        assert!(acceptor.next(self.table()).is_none(), "an entry that nobody posted");
        taken
    }
}

/// Every word tells whose token this is, so that a torn or stale entry does not go unseen.
fn token(poster: u16, number: u64) -> Token {
    let mark = u64::from(poster) << 32 | number;
    Token::new(TokenKind::COMMAND, poster, 7, mark, [mark; 6])
}

/// Two posters post `counts` tokens. The NIC must get each whole, each once, each poster's in its order.
fn two_posters_and_a_nic<A>(entries: usize, counts: [u64; 2])
where
    A: Atomics<U32 = Word32, U64 = Word64>,
    Shared<A>: Send + Sync,
{
    let shared = Shared::<A>::new(entries);
    let posters = [(1, counts[0]), (2, counts[1])].map(|(poster, count)| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.post(poster, count))
    });
    let taken = shared.serve(usize::try_from(counts[0] + counts[1]).expect("a few"));
    for poster in posters {
        poster.join().expect("the poster ends");
    }
    for (poster, count) in [(1, counts[0]), (2, counts[1])] {
        let own: Vec<Token> = taken
            .iter()
            .filter(|token| token.vi == poster)
            .map(|token| Token { sequence: 0, ..*token })
            .collect();
        let expected: Vec<Token> = (0..count).map(|number| token(poster, number)).collect();
        assert_eq!(own, expected);
    }
}

#[test]
fn nothing_is_lost_or_duplicated_and_no_wake_up_is_missed() {
    explore(2, || two_posters_and_a_nic::<Fenced>(4, [2, 1]));
}

#[test]
fn a_full_table_makes_posters_wait() {
    explore(2, || two_posters_and_a_nic::<Fenced>(1, [1, 1]));
    explore(1, || two_posters_and_a_nic::<Fenced>(1, [2, 1]));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fences_a_wake_up_is_missed() {
    explore(2, || two_posters_and_a_nic::<Unfenced>(4, [1, 1]));
}

#[test]
fn posters_that_wait_for_room_give_up_when_the_table_is_closed() {
    explore(3, || {
        let shared = Shared::<Fenced>::new(1);
        let posters = [1, 2].map(|poster| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.poster.post(shared.table(), &token(poster, 0), || {
                    thread::yield_now();
                    true
                })
            })
        });
        Acceptor::new().close(shared.table());
        let outcomes = posters.map(|poster| poster.join().expect("the poster ends"));
        assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() <= 1, "the table has one slot");
        assert!(outcomes.iter().all(|outcome| !matches!(outcome, Err(PostError::GaveUp))));
    });
}
