//! Waiters and what ends their waits.

use super::*;

fn board() -> NoticeBoard {
    NoticeBoard::new(Ram::of_this_process().expect("guest RAM")).expect("guest RAM")
}

fn soon() -> Option<Instant> {
    Some(Instant::now())
}

#[test]
fn a_word_that_fired_before_the_wait_ends_it() {
    let board = board();
    board.fire(3, 17);
    board.fire(3, 17);
    assert_eq!(board.wait_for_word(3, 17, 0, None), Woken::Fired(2));
    assert_eq!(board.wait_for_word(3, 17, 2, soon()), Woken::TimedOut);
    assert_eq!(board.wait_for_word(4, 17, 0, soon()), Woken::TimedOut);
}

#[test]
fn one_waiter_may_wait_for_any_word() {
    let board = board();
    board.fire(3, 17);
    board.fire(3, 2000);
    assert_eq!(board.wait_for_word(3, NRA_ANY, 0, None), Woken::Fired(2));
    assert_eq!(board.wait_for_word(4, NRA_ANY, 0, soon()), Woken::TimedOut);
}

#[test]
fn all_waiters_of_a_word_wake() {
    let board = board();
    std::thread::scope(|scope| {
        let waiters = [(); 3].map(|()| scope.spawn(|| board.wait_for_word(1, 5, 0, None)));
        board.fire(1, 5);
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Woken::Fired(1));
        }
    });
}

#[test]
fn events_about_nothing_are_ignored() {
    let board = board();
    board.fire(MAX_CONTEXTS, 0);
    board.fire(0, NRA_WORDS);
    board.fail_context(MAX_CONTEXTS);
    board.complete(u64::MAX, Status::SUCCESS);
    board.complete(1 << 32 | 5, Status::SUCCESS);
    assert!(!board.nic_has_failed());
}

#[test]
fn a_failed_context_ends_its_waits_and_only_its() {
    let board = board();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| board.wait_for_word(2, 9, 0, None));
        board.fail_context(2);
        assert_eq!(waiter.join().expect("no panic"), Woken::Failed);
    });
    assert_eq!(board.wait_for_word(2, 9, 0, None), Woken::Failed);
    assert_eq!(board.wait_for_word(3, 9, 0, soon()), Woken::TimedOut);
    board.open_context(2, 0);
    assert_eq!(board.wait_for_word(2, 9, 0, soon()), Woken::TimedOut);
}

#[test]
fn commands_complete_by_their_tags() {
    let board = board();
    let mut first = board.take_ticket().expect("a ticket");
    let mut second = board.take_ticket().expect("a ticket");
    assert_ne!(first.tag(), second.tag());
    board.complete(second.tag(), Status::TIMEOUT);
    assert_eq!(first.wait(soon()), Progress::TimedOut);
    assert_eq!(second.wait(None), Progress::Done(Status::TIMEOUT));
    let stale = second.tag();
    drop(second);
    let mut third = board.take_ticket().expect("a ticket");
    board.complete(stale, Status::SUCCESS);
    assert_eq!(third.wait(soon()), Progress::TimedOut);
    board.interrupt(third.tag());
    assert_eq!(third.wait(None), Progress::Interrupted);
    board.complete(third.tag(), Status::SUCCESS);
    assert_eq!(third.wait(None), Progress::Done(Status::SUCCESS));
    board.interrupt(third.tag());
    assert_eq!(third.wait(None), Progress::Done(Status::SUCCESS));
}

#[test]
fn a_ticket_whose_command_never_completed_is_not_used_again() {
    let board = board();
    for _ in 0..TICKETS {
        board.take_ticket().expect("a ticket");
    }
    assert!(board.take_ticket().is_none());
}

#[test]
fn a_failed_card_completes_everything_and_closes_the_token_tables() {
    let ram = Ram::of_this_process().expect("guest RAM");
    let board = board();
    let table = ram.allocate(PAGE).expect("guest RAM");
    board.open_context(7, table.address());
    let mut before = board.take_ticket().expect("a ticket");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| before.wait(None));
        board.fail_nic();
        assert_eq!(waiter.join().expect("no panic"), Progress::Done(Status::NIC_FAILED));
    });
    let mut after = board.take_ticket().expect("a ticket");
    assert_eq!(after.wait(None), Progress::Done(Status::NIC_FAILED));
    let state = table.words::<AtomicU32>(std::mem::offset_of!(Header, nic_state) as u64, 1);
    assert_eq!(state[0].load(Ordering::SeqCst), NicState::CLOSED.0);
    assert_eq!(board.wait_for_word(7, 0, 0, None), Woken::Failed);
}

#[test]
fn blocks_are_each_ticket_s_own() {
    let board = board();
    let tickets = [board.take_ticket().expect("a ticket"), board.take_ticket().expect("a ticket")];
    for (connection, ticket) in (1..).zip(&tickets) {
        ticket.write_block(&ConnectBlock { connection, ..ConnectBlock::default() });
    }
    assert_eq!(tickets[0].read_block().connection, 1);
    assert_eq!(tickets[1].read_block().connection, 2);
    assert!(tickets.iter().all(|ticket| ticket.block_address().is_multiple_of(8)));
}
