//! What the conformance suite cannot provoke.

const IN_ERROR: &str = "when the NIC has failed, the VI is in Error";
const NO_READ: &str = "there is no RDMA read at Unreliable Delivery";

/// A word of the suite, with `@` and a level if it is about one, and why no test shows it.
pub(crate) const NOT_PROVOKED: &[(&str, &str)] = &[
    (
        "VipConnectAccept:VIP_ERROR_RESOURCE",
        "the NIC must fail while it makes the connection: before, the VI is in Error",
    ),
    ("VipConnectPeerRequest:VIP_ERROR_RESOURCE", IN_ERROR),
    ("VipSendWait:VIP_ERROR_RESOURCE", "no send stays on its way for as long as it takes to close the NIC"),
    ("VipSetViAttributes:VIP_ERROR_RESOURCE", IN_ERROR),
    ("error:RDMAR_PROT@unreliable", NO_READ),
    ("error:RDMA_TRANSPORT@unreliable", NO_READ),
    ("status:OP_RDMA_READ@unreliable", NO_READ),
    ("status:RDMA_PROT_ERROR@unreliable", "a sender is not told there what became of an RDMA write"),
    ("status:REMOTE_DESC_ERROR@delivery", "what fails at the peer is a transport error there"),
    ("status:REMOTE_DESC_ERROR@unreliable", "a sender is not told there what became of a message"),
];
