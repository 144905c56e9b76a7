//! Message contents that both sides know: bytes that depend on a seed, on the direction, on the message's number and size,
//! so that a byte that is missing, moved, or left over from another message is seen.

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Sender {
    /// The other one.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    fn salt(self) -> u64 {
        match self {
            Self::Client => 0x636c_6965_6e74,
            Self::Server => 0x7365_7276_6572,
        }
    }
}

/// A random stream for one direction.
pub(crate) fn stream(seed: u64, sender: Sender) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed ^ sender.salt())
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Seed of the run.
    pub seed: u64,
    /// Who sends it.
    pub sender: Sender,
    /// Its number, from 0.
    pub number: u64,
}

impl Message {
    fn words(self, size: usize) -> fastrand::Rng {
        let mut rng = stream(self.seed, self.sender);
        // Neighbouring numbers and sizes give unrelated streams.
        let mix =
            rng.u64(..) ^ self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (size as u64).rotate_left(40);
        fastrand::Rng::with_seed(mix)
    }

    /// Writes the message.
    pub fn fill(self, bytes: &mut [u8]) {
        self.words(bytes.len()).fill(bytes);
    }

    /// Compares what came with the message.
    ///
    /// # Errors
    /// The first byte that is wrong.
    pub fn check(self, bytes: &[u8], expected: &mut Vec<u8>) -> Result<(), Mismatch> {
        expected.resize(bytes.len(), 0);
        self.fill(expected);
        let wrong = bytes.iter().zip(&*expected).position(|(got, expected)| got != expected);
        wrong.map_or(Ok(()), |byte| {
            Err(Mismatch {
                message: self,
                size: bytes.len(),
                byte,
                got: bytes[byte],
                expected: expected[byte],
            })
        })
    }
}

/// A byte that is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    message: Message,
    size: usize,
    byte: usize,
    got: u8,
    expected: u8,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Message { seed, sender, number } = self.message;
        let sender = match sender {
            Sender::Client => "client",
            Sender::Server => "server",
        };
        let Self { size, byte, got, expected, .. } = self;
        write!(
            f,
            "message {number} from the {sender}, {size} bytes: byte {byte} is {got:#04x}, expected {expected:#04x} (seed {seed})"
        )
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, sender: Sender, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        Message { seed: 1, sender, number }.fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_wrong_byte_is_named() {
        let first = Message { seed: 1, sender: Sender::Client, number: 7 };
        let mut bytes = message(7, Sender::Client, 1000);
        assert_eq!(first.check(&bytes, &mut Vec::new()), Ok(()));
        bytes[513] ^= 0x10;
        let mismatch = first.check(&bytes, &mut Vec::new()).expect_err("a byte is wrong");
        assert_eq!((mismatch.byte, mismatch.got), (513, mismatch.expected ^ 0x10));
        assert!(mismatch.to_string().starts_with("message 7 from the client, 1000 bytes: byte 513 is 0x"));
    }

    #[test]
    fn messages_differ_from_the_start() {
        let all = [
            message(0, Sender::Client, 64),
            message(1, Sender::Client, 64),
            message(0, Sender::Server, 64),
            message(0, Sender::Client, 65),
        ];
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert_ne!(one[..8], other[..8]);
                // Not a shifted copy either.
                assert!(other.windows(16).all(|window| window != &one[..16]));
            }
        }
        assert_eq!(all[0], message(0, Sender::Client, 64));
    }
}
