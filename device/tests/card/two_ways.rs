//! A message goes through the cards in one of several ways: at once from the first descriptor of the one queue to that of the other,
//! or cut into frames; and a descriptor is accepted as it is, or taken apart first. Guests cannot tell which way it was.

mod scene;
mod step;

use crate::two_ways::scene::{Scene, Way};
use crate::two_ways::step::{Between, End, Flaw, Pair, Piece, Post, Room, Step, pairs, steps};
use proptest::prelude::*;
use vianic_abi::NO_CQ;
use vianic_abi::descriptor::Operation;
use vianic_abi::status::ReliabilityLevel;
use vianic_device::vito::connection::SLICE;

/// Has the same happen to cards whose messages go the short way and to others, and compares what the guests see.
fn compare(way: Way, pairs: &[Pair], steps: &[Step]) -> Result<(), TestCaseError> {
    let mut scenes = [Way::Short, way].map(|way| Scene::new(way, pairs));
    for step in steps {
        let [short, other] = scenes.each_mut().map(|scene| scene.step(step));
        prop_assert_eq!(short, other, "after {:?}", step);
    }
    let [short, other] = scenes.each_mut().map(Scene::finish);
    prop_assert_eq!(short, other, "at the end");
    let [short, other] = scenes.each_ref().map(Scene::bytes);
    for (number, (short, other)) in short.iter().zip(&other).enumerate() {
        let differ = short.iter().zip(other).position(|(short, other)| short != other);
        prop_assert_eq!(differ, None, "the first byte of room {} that differs", number);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn messages_in_one_piece_are_as_those_in_frames(pairs in pairs(), steps in steps()) {
        compare(Way::Frames, &pairs, &steps)?;
    }

    #[test]
    fn plain_descriptors_are_as_those_that_are_copied(pairs in pairs(), steps in steps()) {
        compare(Way::Indirect, &pairs, &steps)?;
    }
}

/// A message whose second slice is not the sender's to send has begun to come in when the next one comes, in one piece.
#[test]
fn a_message_that_broke_off_is_given_up_whichever_way_the_next_one_comes() {
    let piece = |room, length| Piece { room, offset: 0, length };
    let post = |pieces| Post {
        operation: Operation::SEND_RECEIVE,
        immediate: None,
        remote: piece(Room::Nowhere, 0),
        pieces,
        indirect: false,
        flaw: Flaw::None,
    };
    let message =
        |pieces, room| Step::Message { from: End(0), receive: Some(post(vec![room])), send: post(pieces) };
    let (slice, rest) = (piece(Room::Large, SLICE), piece(Room::Nowhere, 8));
    let breaks_off = message(vec![slice, rest], piece(Room::Large, SLICE + 8));
    let comes_next = message(vec![piece(Room::Pages, 8)], piece(Room::Pages, 8));
    for between in [Between::Cards, Between::OneProcess] {
        let (level, max_transfer_size) = (ReliabilityLevel::UNRELIABLE, 1 << 20);
        let pair = Pair { between, level, max_transfer_size, cqs: [[NO_CQ; 2]; 2] };
        compare(Way::Frames, &[pair], &[breaks_off.clone(), Step::Run, comes_next.clone(), Step::Run])
            .expect("both ways the same");
    }
}
