//! Random bytes where guests write: nothing panics or hangs, and who keeps the rules goes on.

use crate::harness::{Fabric, NONE, PTAG};
use proptest::prelude::*;
use vianic_abi::descriptor::DescriptorStatus;
use vianic_abi::mrt::MrtEntry;
use vianic_abi::status::ReliabilityLevel;
use vianic_abi::token::Token;

/// Tokens that are wild, but often in ways that get past the first checks.
fn token() -> impl Strategy<Value = Token> {
    let small = prop_oneof![4 => 0..18_u16, 1 => any::<u16>()];
    let word = prop_oneof![
        2 => 0..8_u64,
        2 => (0..0x400_0000_u64).prop_map(|address| address & !0x3f),
        1 => (0..0x400_0000_u64).prop_map(|address| (address & !0x3f) + crate::harness::VIRTUAL),
        1 => any::<u64>(),
    ];
    let kind = prop_oneof![8 => 1..4_u8, 1 => any::<u8>()];
    (small, kind, 0..3_u8, word.clone(), proptest::array::uniform6(word)).prop_map(
        |(vi, kind, flags, descriptor, body)| Token { sequence: 0, vi, kind, flags, descriptor, body },
    )
}

fn mrt_entry() -> impl Strategy<Value = MrtEntry> {
    proptest::array::uniform16(any::<u64>()).prop_map(|words| {
        let mut entry: MrtEntry = zerocopy::transmute!(words);
        entry.page_shift = 9 + entry.page_shift % 24;
        entry.context %= 3;
        entry.page_count %= 64;
        entry.length %= 64 << 12;
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Faults 8, 42 and 43: whatever a user's Token Table says, the other contexts go on.
    #[test]
    fn fault_42_random_tokens_in_a_users_table(tokens in proptest::collection::vec(token(), 1..60)) {
        let mut fabric = Fabric::new(2);
        let (wild, tame, peer) = (fabric.open(0, 1), fabric.open(0, 2), fabric.open(1, 1));
        for process in [&wild, &tame, &peer] {
            fabric.create_vi(process, 0, ReliabilityLevel::RELIABLE_DELIVERY, NONE);
        }
        fabric.create_vi(&peer, 1, ReliabilityLevel::RELIABLE_DELIVERY, NONE);
        fabric.connect((&wild, 0), (&peer, 1));
        fabric.connect((&tame, 0), (&peer, 0));
        for token in &tokens {
            fabric.post(0, &wild.queues, 1, token);
            fabric.run();
        }
        let source = fabric.guests[0].register(2, PTAG, 7, 5000);
        let target = fabric.guests[1].register(1, PTAG, 9, 5000);
        fabric.guests[0].fill(&source, 3);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let send = fabric.guests[0].descriptor(2, vec![source.segment()]);
        fabric.post_descriptor(&peer, 0, true, &receive);
        fabric.post_descriptor(&tame, 0, false, &send);
        fabric.run();
        prop_assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
        prop_assert!(fabric.guests[1].holds(&target, 5000, 3));
    }

    /// Whatever a Kernel Agent says, the other guests go on.
    #[test]
    fn fault_43_random_commands_from_a_kernel_agent(
        tokens in proptest::collection::vec(token(), 1..60),
        entries in proptest::collection::vec(mrt_entry(), 8),
    ) {
        let mut fabric = Fabric::new(2);
        let wild = fabric.open(0, 1);
        let (tame, other) = (fabric.open(1, 1), fabric.open(1, 2));
        fabric.create_vi(&wild, 0, ReliabilityLevel::RELIABLE_DELIVERY, NONE);
        fabric.create_vi(&tame, 0, ReliabilityLevel::RELIABLE_DELIVERY, NONE);
        fabric.create_vi(&other, 0, ReliabilityLevel::RELIABLE_DELIVERY, NONE);
        for (index, entry) in (0..).zip(&entries) {
            fabric.guests[0].write_mrt(index, &MrtEntry { handle: index, ..*entry });
        }
        for token in &tokens {
            let kernel = &fabric.guests[0].kernel;
            // Keeps the MCQ from filling up, which would be an end of its own.
            while kernel.reap().is_some() {}
            let rung = kernel.post(&Token { kind: 3, ..*token });
            if rung.is_ok() {
                fabric.switch.running(0).expect("running").doorbell(0);
            }
            fabric.post(0, &wild.queues, 1, token);
            fabric.run();
        }
        fabric.connect((&tame, 0), (&other, 0));
    }
}
