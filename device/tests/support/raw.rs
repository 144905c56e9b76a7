//! vhost-user messages as bytes, well-formed or not.

use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

/// `GET_FEATURES`, `SET_FEATURES` and so on.
pub(crate) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const GET_SHMEM_CONFIG: u32 = 44;
}

/// Protocol version 1, and that an answer is wanted.
pub(crate) const NEED_REPLY: u32 = 0x9;

/// A message: header and payload.
pub(crate) fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("32 bits");
    let header = [request, flags, length].map(u32::to_ne_bytes).concat();
    [header, payload.to_vec()].concat()
}

/// A message whose payload is 64-bit words.
pub(crate) fn words(request: u32, words: &[u64]) -> Vec<u8> {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    message(request, NEED_REPLY, &payload)
}

/// A message about a virtqueue: its number and a value.
pub(crate) fn vring(request: u32, queue: u32, value: u32) -> Vec<u8> {
    message(request, NEED_REPLY, &[queue, value].map(u32::to_ne_bytes).concat())
}

/// The messages with which a front end begins: owner, features, protocol features.
pub(crate) fn greeting() -> Vec<Vec<u8>> {
    vec![
        message(request::SET_OWNER, 1, &[]),
        message(request::GET_FEATURES, 1, &[]),
        words(request::SET_FEATURES, &[0x1_4000_0000]),
        message(request::GET_PROTOCOL_FEATURES, 1, &[]),
        words(request::SET_PROTOCOL_FEATURES, &[0x40_2629]),
        message(request::GET_QUEUE_NUM, 1, &[]),
        message(request::GET_SHMEM_CONFIG, 1, &[]),
        message(request::GET_CONFIG, 1, &[[0, 4, 0].map(u32::to_ne_bytes).concat(), vec![0; 4]].concat()),
    ]
}

/// A connection that sends bytes.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(super::LIMIT)).expect("limit");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("limit");
        Self(stream)
    }

    /// Sends bytes and descriptors; a card that has hung up is no failure.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        let _ = self.0.send_with_fds(&[bytes], &descriptors);
    }

    /// Waits until the card hangs up or, having read all, would wait for more.
    pub(crate) fn finish(mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}
