//! The protocol between the host and the guest agent.
//!
//! One byte stream (a virtio-serial port in a guest) carries frames both ways: [`Call`]s from the host,
//! [`Answer`]s from the guest. Each carries the id of the request it belongs to, so any number of requests
//! are under way at once. The host chooses the ids; one is free again after the answer that ends its request
//! (see [`Reply::is_final`]).
//!
//! **Sessions.** A host begins with [`greet`], which also finds the frame boundary in a stream that an earlier
//! host may have left in mid-frame. A new greeting, or the host's end of the stream closing, ends the session
//! before it: its commands are killed.
//!
//! **Flow control.** Every stream of bytes has a window: the sender may have that many bytes under way and
//! waits for a `Credit` to send more. The receiver so never has to hold more than the windows it granted, and
//! must always read: read and write a connection in different threads.

mod frame;
mod greeting;
mod message;
mod window;

pub use frame::{FrameError, FrameReader, FrameWriter};
pub use greeting::{GreetError, greet};
pub use message::{Answer, Call, Exec, ExitStatus, Info, ModuleState, Reply, Request, Stream, WindowSize};
pub use window::Window;

/// Name of the virtio-serial port that the agent serves.
pub const PORT_NAME: &str = "org.vianic.agent";

/// Version of this protocol: changes whenever a message does.
pub const PROTOCOL_VERSION: u32 = 1;

/// Most bytes that one `Data` or `Output` may carry.
pub const MAX_CHUNK: usize = 32 * 1024;

/// Bytes the host may send to a command's standard input, or into a file, before the first `Credit`.
pub const INPUT_WINDOW: u32 = 128 * 1024;
