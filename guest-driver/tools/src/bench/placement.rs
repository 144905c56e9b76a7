//! Where the two threads of a measurement run, seen from inside: whether their processors are two cores at the moment, and whether
//! each has its core for itself.
//!
//! Both change within milliseconds on a virtual machine, and neither is this machine's doing: two virtual processors may be threads of one core
//! now and of two cores a second later, and the other thread of a core may be somebody else's.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::beside::Cores;
use super::bounce::Bounce;

/// Threads of one core exchange a cache line several times faster than two cores. What was measured while a cache line was faster
/// than this (nanoseconds, there and back) tells nothing about a card on another core, and is dropped ...
const SAME_CORE_NS: f64 = 100.0;
/// ... if at least this part of the probes was slower. Otherwise this may be a machine as fast as that.
const ENOUGH: f64 = 0.1;
/// A thread that shares its core gets half of the core's instructions while the other one computes; the memory is as fast as ever. A core that
/// is slower than this part of what it was at its best has a neighbour.
const WHOLE: f64 = 0.8;

/// Words that are computed with side by side, more than a core can wait for.
const WORDS: usize = 6;
/// Steps with each of them: some 20 microseconds in all.
const STEPS: u32 = 10_000;

/// Probes before anything is measured.
const FIRST_LOOKS: u32 = 100;
/// Between two probes while waiting.
const PAUSE: Duration = Duration::from_millis(1);

/// What a probe found.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Nanoseconds of a cache line, there and back.
    bounce_ns: f64,
    /// Steps per nanosecond, on the application's core and the device's.
    paces: [f64; 2],
}

impl Placement {
    /// Looks now.
    ///
    /// # Errors
    /// None that a working machine has.
    pub fn probe(cores: Cores) -> anyhow::Result<Self> {
        let bounce_ns = Bounce::probe(cores)?;
        let mut device = 0.0;
        let application = cores.beside(|| device = pace(), pace);
        Ok(Self { bounce_ns, paces: [application, device] })
    }
}

/// How fast this thread's core computes, with as many instructions at once as it can.
fn pace() -> f64 {
    let mut words: [u64; WORDS] = black_box(std::array::from_fn(|place| place as u64));
    let begin = Instant::now();
    for step in 0..STEPS {
        for word in &mut words {
            *word = (*word ^ u64::from(step)).wrapping_add(0x9e37_79b9).rotate_left(7);
        }
    }
    black_box(words);
    f64::from(STEPS) / begin.elapsed().as_nanos() as f64
}

/// Tells the placements in which samples count from the others, by all that it was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    shown: u32,
    /// Those of them in which a cache line went to another core.
    apart: u32,
    best: [f64; 2],
}

impl Judge {
    /// Takes note of a placement.
    pub fn show(&mut self, placement: &Placement) {
        self.shown += 1;
        self.apart += u32::from(placement.bounce_ns >= SAME_CORE_NS);
        for (best, pace) in self.best.iter_mut().zip(placement.paces) {
            *best = best.max(pace);
        }
    }

    /// Whether what was measured there counts.
    #[must_use]
    pub fn accepts(&self, placement: &Placement) -> bool {
        let always_near = f64::from(self.apart) < f64::from(self.shown) * ENOUGH;
        let apart = always_near || placement.bounce_ns >= SAME_CORE_NS;
        let whole = |(pace, best): (&f64, &f64)| *pace >= best * WHOLE;
        apart && placement.paces.iter().zip(&self.best).all(whole)
    }
}

/// Waits for placements in which samples count.
#[derive(Debug)]
pub struct Watch {
    cores: Cores,
    judge: Judge,
    last: Placement,
    patience: Duration,
}

impl Watch {
    /// Waits no longer than `patience` in all.
    ///
    /// # Errors
    /// None that a working machine has.
    pub fn new(cores: Cores, patience: Duration) -> anyhow::Result<Self> {
        let last = Placement::probe(cores)?;
        let mut watch = Self { cores, judge: Judge::default(), last, patience };
        // To know what the cores can do at their best.
        for _ in 0..FIRST_LOOKS {
            watch.look()?;
        }
        Ok(watch)
    }

    /// The placement now.
    ///
    /// # Errors
    /// None that a working machine has.
    pub fn look(&mut self) -> anyhow::Result<Placement> {
        self.last = Placement::probe(self.cores)?;
        self.judge.show(&self.last);
        Ok(self.last)
    }

    /// A placement that counts, from the last one on; or, when there is no more patience, what there is.
    ///
    /// # Errors
    /// None that a working machine has.
    pub fn wait(&mut self) -> anyhow::Result<Placement> {
        while !self.judge.accepts(&self.last) && self.patience > Duration::ZERO {
            let begin = Instant::now();
            std::thread::sleep(PAUSE);
            self.look()?;
            self.patience = self.patience.saturating_sub(begin.elapsed());
        }
        Ok(self.last)
    }

    /// What it has learnt.
    #[must_use]
    pub fn judge(&self) -> Judge {
        self.judge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(bounce_ns: f64, application: f64, device: f64) -> Placement {
        Placement { bounce_ns, paces: [application, device] }
    }

    fn judge(placements: &[Placement]) -> Vec<bool> {
        let mut judge = Judge::default();
        placements.iter().for_each(|placement| judge.show(placement));
        placements.iter().map(|placement| judge.accepts(placement)).collect()
    }

    #[test]
    fn a_core_that_somebody_else_uses_too_does_not_count() {
        let placements = [
            placement(230.0, 0.50, 0.60),
            placement(230.0, 0.49, 0.31),
            placement(230.0, 0.25, 0.60),
            placement(38.0, 0.50, 0.60),
        ];
        assert_eq!(judge(&placements), [true, false, false, false]);
    }

    #[test]
    fn a_machine_may_be_as_fast_as_that() {
        assert_eq!(judge(&[placement(38.0, 0.5, 0.5), placement(40.0, 0.5, 0.5)]), [true, true]);
    }

    #[test]
    fn patience_ends() -> anyhow::Result<()> {
        let Ok(cores) = Cores::take() else { return Ok(()) };
        let mut watch = Watch::new(cores, Duration::from_millis(20))?;
        // No core is ever as fast as this.
        watch.judge.best = [f64::MAX; 2];
        watch.wait()?;
        assert_eq!(watch.patience, Duration::ZERO);
        Ok(())
    }
}
