//! Instructions per message, which are the same in every run: a change that makes the fast path longer is seen at once.

use anyhow::Result;
use vianic_bench::by_hand::COUNTED;
use vianic_bench::callgrind;

/// Messages of a run; so many that making connections and the like, which is not counted anyway, leaves no trace.
const MESSAGES: u64 = 1024;

/// What compilers may differ by.
const TOLERANCE_PERCENT: u64 = 5;

/// Instructions per message of 64 bytes. Whoever makes them fewer lowers the bound; whoever makes them more says why.
struct Bound {
    /// Messages at a time.
    window: &'static str,
    /// In the order of [`COUNTED`]: posting a receive and a send, the card, taking both.
    instructions: [u64; 3],
}

const BOUNDS: [Bound; 2] = [
    Bound { window: "1", instructions: [576, 1969, 439] },
    Bound { window: "64", instructions: [477, 1007, 309] },
];

#[test]
#[cfg_attr(debug_assertions, ignore = "the bounds are those of the release profile")]
fn a_message_takes_no_more_instructions_than_before() -> Result<()> {
    let mut exceeded = Vec::new();
    for Bound { window, instructions } in BOUNDS {
        let messages = MESSAGES.to_string();
        let command =
            [env!("CARGO_BIN_EXE_vianic-count"), "--window", window, "--messages", messages.as_str()];
        let counts = callgrind::count(&command, COUNTED)?.map(|count| count.div_ceil(MESSAGES));
        println!("window {window}: {COUNTED:?} = {counts:?}, {} in all", counts.iter().sum::<u64>());
        for ((what, count), bound) in COUNTED.iter().zip(counts).zip(instructions) {
            if count * 100 > bound * (100 + TOLERANCE_PERCENT) {
                exceeded.push(format!("{what}, {window} at a time: {count}, bound {bound}"));
            }
        }
    }
    assert!(exceeded.is_empty(), "instructions per message:\n{}", exceeded.join("\n"));
    Ok(())
}
