//! The attach queue: reads [`AttachRequest`]s and answers them.

use std::io::{Read as _, Write as _};

use vhost_user_backend::VringT as _;
use vianic_abi::ABI_VERSION;
use vianic_abi::attach::{AttachReply, AttachRequest};
use vianic_abi::status::Status;
use virtio_queue::{DescriptorChain, QueueT as _, Reader, Writer};
use vm_memory::{GuestAddressSpace as _, GuestMemoryLoadGuard, GuestMemoryMmap};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::vring::Vring;
use super::{Memory, chain};
use crate::rate_limit::warn_limited;

type Guard = GuestMemoryLoadGuard<GuestMemoryMmap>;

/// Answers the requests on `ring` with what `attach` says. A chain that is not a request goes back with nothing
/// written.
pub(super) fn serve(ring: &Vring, memory: &Memory, mut attach: impl FnMut(AttachRequest) -> Status) {
    let guard = memory.memory();
    let size = ring.get_ref().get_queue().size();
    let mut used = false;
    for _ in 0..size {
        let Some(chain) = chain::pop(ring, guard.clone()) else { break };
        let head = chain.head_index();
        let written = answer(&guard, chain, &mut attach).unwrap_or_else(|| {
            warn_limited!("a driver put something on the attach queue that is not an attach request");
            0
        });
        chain::give_back(ring, head, written);
        used = true;
    }
    if used {
        chain::signal(ring);
    }
}

/// Answers one chain and tells how many bytes were written; `None` if it does not hold a request and room for the
/// reply.
fn answer(
    memory: &Guard,
    chain: DescriptorChain<Guard>,
    attach: &mut impl FnMut(AttachRequest) -> Status,
) -> Option<u32> {
    let mut reader = Reader::new(&**memory, chain.clone()).ok()?;
    let mut writer = Writer::new(&**memory, chain).ok()?;
    let mut request = AttachRequest::new_zeroed();
    reader.read_exact(request.as_mut_bytes()).ok()?;
    if writer.available_bytes() < size_of::<AttachReply>() {
        return None;
    }
    let status = if request.abi_version == ABI_VERSION {
        attach(request)
    } else {
        warn_limited!(
            "a driver of ABI version {} asked for the card, which has version {ABI_VERSION}: install the guest \
             driver that came with this vianic",
            request.abi_version
        );
        Status::NOT_SUPPORTED
    };
    let reply = AttachReply { status: status.0, abi_version: ABI_VERSION };
    writer.write_all(reply.as_bytes()).ok()?;
    u32::try_from(reply.as_bytes().len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost::test_queue::{Part, RAM, TestQueue};
    use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
    use zerocopy::FromBytes as _;

    const REQUEST: u64 = 0x5000;
    const REPLY: u64 = 0x6000;

    fn request() -> AttachRequest {
        AttachRequest {
            abi_version: ABI_VERSION,
            token_table_log2: 6,
            mcq_log2: 7,
            reserved: 0,
            token_table: 0x8000,
            mcq: 0x9000,
            mdl_insert: 0xa000,
        }
    }

    /// Serves the queue and returns the requests that were to be attached.
    fn serve_queue(queue: &TestQueue) -> Vec<AttachRequest> {
        let mut seen = Vec::new();
        serve(&queue.ring, &queue.memory, |request| {
            seen.push(request);
            Status::SUCCESS
        });
        seen
    }

    fn reply(queue: &TestQueue) -> AttachReply {
        AttachReply::read_from_bytes(&queue.read::<8>(REPLY)).expect("reply")
    }

    #[test]
    fn a_request_is_answered() {
        let mut queue = TestQueue::new();
        queue.write(REQUEST, request().as_bytes());
        queue.offer(&[Part::Out(REQUEST, 32), Part::In(REPLY, 8)]);
        assert_eq!(serve_queue(&queue), [request()]);
        assert_eq!(reply(&queue), AttachReply { status: 0, abi_version: ABI_VERSION });
        assert_eq!(queue.used(), [(0, 8)]);
    }

    #[test]
    fn a_request_may_be_split_anywhere() {
        let mut queue = TestQueue::new();
        let bytes = request();
        queue.write(REQUEST, &bytes.as_bytes()[..5]);
        queue.write(REQUEST + 0x100, &bytes.as_bytes()[5..31]);
        queue.write(REQUEST + 0x200, &bytes.as_bytes()[31..]);
        let out = [Part::Out(REQUEST, 5), Part::Out(REQUEST + 0x100, 26), Part::Out(REQUEST + 0x200, 1)];
        let parts =
            [&out[..], &[Part::In(REPLY, 3), Part::In(REPLY + 3, 0), Part::In(REPLY + 3, 5)]].concat();
        queue.offer(&parts);
        assert_eq!(serve_queue(&queue), [request()]);
        assert_eq!(reply(&queue).abi_version, ABI_VERSION);
        assert_eq!(queue.used(), [(0, 8)]);
    }

    #[test]
    fn another_abi_version_is_not_supported() {
        let mut queue = TestQueue::new();
        queue.write(REQUEST, AttachRequest { abi_version: ABI_VERSION + 1, ..request() }.as_bytes());
        queue.offer(&[Part::Out(REQUEST, 32), Part::In(REPLY, 8)]);
        assert_eq!(serve_queue(&queue), []);
        assert_eq!(reply(&queue), AttachReply { status: Status::NOT_SUPPORTED.0, abi_version: ABI_VERSION });
    }

    #[test]
    fn what_is_no_request_goes_back_with_nothing_written() {
        let chains: &[&[Part]] = &[
            &[Part::Out(REQUEST, 31), Part::In(REPLY, 8)],
            &[Part::Out(REQUEST, 32), Part::In(REPLY, 7)],
            &[Part::Out(REQUEST, 32)],
            &[Part::In(REPLY, 8)],
            &[Part::In(REQUEST, 32), Part::Out(REPLY, 8)],
            &[Part::Out(RAM - 16, 32), Part::In(REPLY, 8)],
            &[Part::Out(REQUEST, 32), Part::In(RAM - 4, 8)],
            &[Part::Out(u64::MAX - 8, 32), Part::In(REPLY, 8)],
            &[Part::Out(REQUEST, u32::MAX), Part::In(REPLY, 8)],
            &[Part::Out(u64::MAX, 0), Part::In(REPLY, 7)],
        ];
        for parts in chains {
            let mut queue = TestQueue::new();
            queue.write(REQUEST, request().as_bytes());
            queue.offer(parts);
            assert_eq!(serve_queue(&queue), [], "{parts:?}");
            assert_eq!(queue.used(), [(0, 0)], "{parts:?}");
        }
    }

    #[test]
    fn chains_that_loop_or_lead_nowhere_end() {
        let queue = TestQueue::new();
        // A loop of two; a next outside the table; an indirect table outside RAM; one of odd length; one in itself.
        queue.describe(0, Part::Out(REQUEST, 1), VRING_DESC_F_NEXT, 1);
        queue.describe(1, Part::Out(REQUEST, 1), VRING_DESC_F_NEXT, 0);
        queue.describe(2, Part::Out(REQUEST, 32), VRING_DESC_F_NEXT, 999);
        queue.describe(3, Part::Out(RAM, 16), VRING_DESC_F_INDIRECT, 0);
        queue.describe(4, Part::Out(REQUEST, 17), VRING_DESC_F_INDIRECT, 0);
        queue.describe(5, Part::Out(0x1000 + 5 * 16, 16), VRING_DESC_F_INDIRECT, 0);
        queue.describe(6, Part::Out(REQUEST, 0), VRING_DESC_F_INDIRECT, 0);
        for head in [0, 2, 3, 4, 5, 6, 0] {
            queue.make_available(head);
        }
        assert_eq!(serve_queue(&queue), []);
        assert_eq!(queue.used(), [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (0, 0)]);
    }

    #[test]
    fn a_head_outside_the_table_is_dropped_and_the_next_chain_served() {
        let mut queue = TestQueue::new();
        queue.write(REQUEST, request().as_bytes());
        queue.make_available(u16::MAX);
        let head = queue.offer(&[Part::Out(REQUEST, 32), Part::In(REPLY, 8)]);
        assert_eq!(serve_queue(&queue).len(), 1);
        assert_eq!(queue.used(), [(u32::from(head), 8)]);
    }

    #[test]
    fn an_avail_index_that_jumps_is_not_followed() {
        let queue = TestQueue::new();
        for index in [17, 0x8000, 0xffff] {
            queue.set_avail_index(index);
            assert_eq!(serve_queue(&queue), []);
            assert_eq!(queue.used(), []);
        }
    }
}
