//! What a message costs each side, while the other one waits: the application posts a window of messages on its core, the card does them on
//! another, the application takes them. No side ever waits within what is measured but for cache lines.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::placement::{Placement, Watch};
use vianic_tools::bench::statistics::Spread;

use crate::by_hand::{ApplicationEnd, ByHand, CardEnd};

/// Windows between two looks at the placement.
const WINDOWS: u32 = 100;

/// Of posting, of the card, of taking.
type Times = [Duration; 3];

/// Nanoseconds of a message.
#[derive(Clone, Copy, Debug)]
pub struct Sides {
    /// The application posts a receive and a send.
    pub post: Spread,
    /// The card does the message.
    pub card: Spread,
    /// The application takes both.
    pub take: Spread,
    /// Samples that count. If none does, the times are of all.
    pub counted: usize,
}

/// Measures `samples` samples of messages of `size` bytes, `window` at a time, in moments in which both cores are this machine's alone, for
/// which it waits no longer than `patience`.
///
/// # Errors
/// If something does not work, or there are not two cores.
pub fn measure(
    directory: &Path,
    (size, window): (u32, u32),
    samples: u32,
    patience: Duration,
) -> anyhow::Result<Sides> {
    let cores = Cores::take()?;
    let mut by_hand = ByHand::new(directory, size, window)?;
    cores.application.pin()?;
    let mut watch = Watch::new(cores, patience)?;
    let mut taken = Vec::new();
    for _ in 0..samples {
        let before = watch.wait()?;
        let (application, card) = by_hand.ends()?;
        let times = sample(cores, application, card)?;
        taken.push((before, watch.look()?, times));
    }
    cores.unpin()?;
    let judge = watch.judge();
    let counts =
        |(before, after, _): &(Placement, Placement, Times)| judge.accepts(before) && judge.accepts(after);
    let counted = taken.iter().filter(|sample| counts(sample)).count();
    if counted > 0 {
        taken.retain(counts);
    }
    let of = |side: usize| {
        let each =
            taken.iter().map(|(_, _, times)| times[side].as_nanos() as f64 / f64::from(WINDOWS * window));
        Spread::of(each).context("there must be a sample")
    };
    Ok(Sides { post: of(0)?, card: of(1)?, take: of(2)?, counted })
}

/// Whose turn it is: odd numbers are the card's.
#[derive(Default)]
struct Turn(AtomicU32);

impl Turn {
    /// After the last one.
    const OVER: u32 = u32::MAX;

    fn wait_for(&self, turn: u32) {
        while self.0.load(Ordering::Acquire) < turn {
            std::hint::spin_loop();
        }
    }

    fn advance_to(&self, turn: u32) {
        self.0.fetch_max(turn, Ordering::Release);
    }
}

/// Times of both ends for [`WINDOWS`] windows.
fn sample(cores: Cores, application: ApplicationEnd<'_>, card: CardEnd<'_>) -> anyhow::Result<Times> {
    let turn = Turn::default();
    let mut of_card = Ok(Duration::ZERO);
    // Who fails leaves nobody waiting: the other one finds that something is missing.
    let of_application = cores.beside(
        || {
            of_card = card_turns(card, &turn);
            turn.advance_to(Turn::OVER);
        },
        || {
            let times = application_turns(application, &turn);
            turn.advance_to(Turn::OVER);
            times
        },
    );
    let card = of_card?;
    let [post, take] = of_application?;
    Ok([post, card, take])
}

fn card_turns(mut card: CardEnd<'_>, turn: &Turn) -> anyhow::Result<Duration> {
    let mut time = Duration::ZERO;
    for window in 0..WINDOWS {
        turn.wait_for(2 * window + 1);
        time += card.turn()?;
        turn.advance_to(2 * window + 2);
    }
    Ok(time)
}

/// Of posting, and of taking.
fn application_turns(mut application: ApplicationEnd<'_>, turn: &Turn) -> anyhow::Result<[Duration; 2]> {
    let [mut post, mut take] = [Duration::ZERO; 2];
    for window in 0..WINDOWS {
        let begin = Instant::now();
        application.post()?;
        post += begin.elapsed();
        turn.advance_to(2 * window + 1);
        turn.wait_for(2 * window + 2);
        let begin = Instant::now();
        application.take()?;
        take += begin.elapsed();
    }
    Ok([post, take])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_measured() -> anyhow::Result<()> {
        if Cores::take().is_err() {
            return Ok(());
        }
        let sides = measure(tempfile::tempdir()?.path(), (64, 16), 3, Duration::ZERO)?;
        for side in [sides.post, sides.card, sides.take] {
            assert!(side.low > 0.0 && side.low <= side.median && side.median <= side.high, "{side:?}");
        }
        assert!(sides.counted <= 3);
        Ok(())
    }
}
