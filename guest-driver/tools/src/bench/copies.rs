//! Copying: messages from one pool of buffers to another, as a benchmark of bandwidth has them.

use std::time::Instant;

use super::contestant::{Contestant, Role, Sample};

/// Bytes of one side's buffers, about, at most.
const POOL_BYTES: u32 = 2 << 20;

/// Buffers to send from and to receive into. Nobody else touches them.
pub struct Pool {
    buffers: Vec<[Box<[u8]>; 2]>,
    next: usize,
}

impl Pool {
    /// Buffers of `size` bytes on each side.
    #[must_use]
    pub fn new(size: u32, window: u32) -> Self {
        let buffer = || vec![1_u8; size as usize].into_boxed_slice();
        let buffers = (0..Self::buffers(size, window)).map(|_| [buffer(), buffer()]).collect();
        Self { buffers, next: 0 }
    }

    /// How many buffers of `size` bytes a pool has on each side: one for each message under way, unless they are so large that
    /// no cache would hold them.
    #[must_use]
    pub fn buffers(size: u32, window: u32) -> usize {
        (POOL_BYTES / size.max(1)).clamp(2, window.max(2)) as usize
    }

    /// Copies a message, each time with the next buffers.
    #[inline]
    pub fn copy(&mut self) {
        let Self { buffers, next } = self;
        *next = (*next + 1) % buffers.len();
        let [from, to] = &mut buffers[*next];
        std::hint::black_box(&mut *to).copy_from_slice(std::hint::black_box(from));
    }
}

/// One thread that copies, and nobody that it has to talk to.
pub struct Memcpy {
    pool: Pool,
    messages: u32,
}

impl Memcpy {
    /// Samples of so many messages.
    #[must_use]
    pub fn new(pool: Pool, messages: u32) -> Self {
        Self { pool, messages }
    }
}

impl Contestant for Memcpy {
    fn name(&self) -> String {
        "memcpy, one thread".into()
    }

    fn role(&self) -> Role {
        Role::Bound
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        let begin = Instant::now();
        for _ in 0..self.messages {
            self.pool.copy();
        }
        Ok(Sample { messages: self.messages.into(), time: begin.elapsed(), singles: Vec::new() })
    }
}
