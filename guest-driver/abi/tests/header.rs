//! Generates the C header that the Kernel Agent includes, and keeps `include/vianic_abi.h` true to the Rust
//! declarations. Run with `VIANIC_UPDATE_HEADER=1` to write it anew.

use std::fmt::Write as _;
use std::path::Path;

use vianic_abi::layout::{CType, Layout, Names};
use vianic_abi::{attach, command, completion, event, mrt, nic_memory, status, token, token_table, uapi};

const PREAMBLE: &str = "\
/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0 OR MIT */
/*
 * The contract between the card, the Kernel Agent and VIPL.
 *
 * Generated from the Rust crate guest-driver/abi by its test `header`; do not
 * edit. The Rust sources say what everything means.
 */
#ifndef VIANIC_ABI_H
#define VIANIC_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>
";

#[test]
fn the_c_header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/vianic_abi.h");
    let generated = header();
    if std::env::var_os("VIANIC_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("write the header");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is out of date: run `VIANIC_UPDATE_HEADER=1 cargo test -p vianic-abi --test header`",
        path.display()
    );
}

fn header() -> String {
    let mut out = String::from(PREAMBLE);
    macro_rules! constants {
        ($($path:path as $name:ident),* $(,)?) => { $(define(&mut out, stringify!($name), u64::from($path));)* };
    }
    macro_rules! enums { ($($t:ty),* $(,)?) => { $(names::<$t>(&mut out);)* }; }
    macro_rules! structs { ($($t:ty),* $(,)?) => { $(structure::<$t>(&mut out);)* }; }

    constants!(
        vianic_abi::ABI_VERSION as ABI_VERSION,
        vianic_abi::MAX_CONTEXTS as MAX_CONTEXTS,
        vianic_abi::KERNEL_CONTEXT as KERNEL_CONTEXT,
        vianic_abi::MAX_VI as MAX_VI,
        vianic_abi::MAX_CQ as MAX_CQ,
        vianic_abi::NO_CQ as NO_CQ,
        vianic_abi::VIRTIO_ID as VIRTIO_ID,
        vianic_abi::EVENT_QUEUE as EVENT_QUEUE,
        vianic_abi::ATTACH_QUEUE as ATTACH_QUEUE,
        vianic_abi::QUEUE_COUNT as QUEUE_COUNT,
        token_table::DEFAULT_ENTRIES_LOG2 as TOKEN_TABLE_LOG2,
        completion::DEFAULT_MCQ_ENTRIES_LOG2 as MCQ_LOG2,
        completion::COMPLETION_RECEIVE as COMPLETION_RECEIVE,
        token::TOKEN_RECEIVE as TOKEN_RECEIVE,
        nic_memory::CONFIG_MAGIC as CONFIG_MAGIC,
        nic_memory::REGISTERS_MAGIC as REGISTERS_MAGIC,
        nic_memory::SHM_REGISTERS as SHM_REGISTERS,
        nic_memory::SHM_REQUESTS as SHM_REQUESTS,
        nic_memory::REGISTERS_SIZE as REGISTERS_SIZE,
        nic_memory::REQUESTS_SIZE as REQUESTS_SIZE,
        nic_memory::COUNTERS_OFFSET as COUNTERS_OFFSET,
        nic_memory::NRA_SIZE as NRA_SIZE,
        nic_memory::NRA_WORDS as NRA_WORDS,
        nic_memory::NRA_MCQ as NRA_MCQ,
        nic_memory::NRA_ERRORS as NRA_ERRORS,
        nic_memory::NRA_ANY as NRA_ANY,
        nic_memory::NRA_CQ as NRA_CQ,
        nic_memory::NRA_VI as NRA_VI,
        nic_memory::MDL_OFFSET as MDL_OFFSET,
        nic_memory::MDL_ENTRIES as MDL_ENTRIES,
        mrt::MRT_CHUNK_ENTRIES as MRT_CHUNK_ENTRIES,
        mrt::MRT_MAX_CHUNKS as MRT_MAX_CHUNKS,
        mrt::LEAF_PAGES as LEAF_PAGES,
        mrt::HANDLE_INDEX_BITS as HANDLE_INDEX_BITS,
        mrt::MAX_GENERATION as MAX_GENERATION,
        mrt::DEFAULT_PTAG as DEFAULT_PTAG,
        mrt::ACCESS_RDMA_WRITE as ACCESS_RDMA_WRITE,
        mrt::ACCESS_RDMA_READ as ACCESS_RDMA_READ,
        command::VI_RDMA_WRITE as VI_RDMA_WRITE,
        command::VI_RDMA_READ as VI_RDMA_READ,
        uapi::INFINITE_MS as INFINITE_MS,
        uapi::MMAP_TOKEN_TABLE as MMAP_TOKEN_TABLE,
        uapi::MMAP_MCQ as MMAP_MCQ,
        uapi::MMAP_NRA as MMAP_NRA,
        uapi::MMAP_DOORBELL as MMAP_DOORBELL,
        uapi::MMAP_REGISTERS as MMAP_REGISTERS,
    );
    define(&mut out, "INLINE_PAGES", mrt::INLINE_PAGES as u64);
    define(&mut out, "NIC_LIST_ENTRIES", command::NIC_LIST_ENTRIES as u64);
    define(&mut out, "NIC_ADDRESS_LEN", vianic_abi::NIC_ADDRESS_LEN as u64);
    define(&mut out, "MAX_DISCRIMINATOR_LEN", vianic_abi::MAX_DISCRIMINATOR_LEN as u64);
    enums!(
        status::Status,
        status::ErrorCode,
        status::ReliabilityLevel,
        token_table::NicState,
        token::TokenKind,
        command::Opcode,
        completion::CompletionKind,
        event::EventKind,
        nic_memory::LinkState,
    );
    structs!(
        nic_memory::ConfigSpace,
        nic_memory::Registers,
        nic_memory::Counters,
        attach::AttachRequest,
        attach::AttachReply,
        token::Token,
        completion::Completion,
        event::Event,
        mrt::MrtEntry,
        command::MrtChunk,
        command::CreateContext,
        command::Target,
        command::ViAttributes,
        command::CreateVi,
        command::SetVi,
        command::Connect,
        command::Cancel,
        command::Answer,
        command::NetAddress,
        command::ConnectBlock,
        command::Discover,
        command::NicEntry,
        command::NicList,
        uapi::NicInfo,
        uapi::OpenContext,
        uapi::ObjectCall,
        uapi::RegisterMemory,
        uapi::DeregisterMemory,
        uapi::CreateViCall,
        uapi::SetMemoryAttributes,
        uapi::SetViAttributes,
        uapi::ConnectWait,
        uapi::ConnectAnswer,
        uapi::ConnectRequest,
        uapi::ConnectPeerWait,
        uapi::DiscoverNics,
        uapi::Wait,
    );

    out.push_str("\n/* Headers of the Token Table and of the MCQ: each word alone on a cache line. */\n");
    let words = [
        ("TOKEN_TABLE_LAST_INSERTED", std::mem::offset_of!(token_table::Header, last_inserted_entry)),
        ("TOKEN_TABLE_LAST_ACCEPTED", std::mem::offset_of!(token_table::Header, last_accepted_entry)),
        ("TOKEN_TABLE_NIC_STATE", std::mem::offset_of!(token_table::Header, nic_state)),
        ("TOKEN_TABLE_ENTRIES", token_table::HEADER_SIZE),
        ("MCQ_CONSUMED", std::mem::offset_of!(completion::McqHeader, consumed)),
        ("MCQ_STALLED", std::mem::offset_of!(completion::McqHeader, stalled)),
        ("MCQ_ENTRIES", completion::MCQ_HEADER_SIZE),
    ];
    for (name, offset) in words {
        define(&mut out, name, offset as u64);
    }

    out.push_str("\n/* ioctls of /dev/vianicN */\n");
    let ioctls = [
        ("QUERY_NIC", uapi::QUERY_NIC, "nic_info"),
        ("OPEN_CONTEXT", uapi::OPEN_CONTEXT, "open_context"),
        ("CREATE_PTAG", uapi::CREATE_PTAG, "object_call"),
        ("DESTROY_PTAG", uapi::DESTROY_PTAG, "object_call"),
        ("REGISTER_MEMORY", uapi::REGISTER_MEMORY, "register_memory"),
        ("DEREGISTER_MEMORY", uapi::DEREGISTER_MEMORY, "deregister_memory"),
        ("CREATE_CQ", uapi::CREATE_CQ, "object_call"),
        ("DESTROY_CQ", uapi::DESTROY_CQ, "object_call"),
        ("CREATE_VI", uapi::CREATE_VI, "create_vi_call"),
        ("DESTROY_VI", uapi::DESTROY_VI, "object_call"),
        ("CONNECT_WAIT", uapi::CONNECT_WAIT, "connect_wait"),
        ("CONNECT_ACCEPT", uapi::CONNECT_ACCEPT, "connect_answer"),
        ("CONNECT_REJECT", uapi::CONNECT_REJECT, "connect_answer"),
        ("CONNECT_REQUEST", uapi::CONNECT_REQUEST, "connect_request"),
        ("DISCONNECT", uapi::DISCONNECT, "object_call"),
        ("WAIT", uapi::WAIT, "wait"),
        ("SHUT_DOWN", uapi::SHUT_DOWN, "object_call"),
        ("SET_MEMORY_ATTRIBUTES", uapi::SET_MEMORY_ATTRIBUTES, "set_memory_attributes"),
        ("SET_VI_ATTRIBUTES", uapi::SET_VI_ATTRIBUTES, "set_vi_attributes"),
        ("CONNECT_PEER_REQUEST", uapi::CONNECT_PEER_REQUEST, "connect_request"),
        ("CONNECT_PEER_WAIT", uapi::CONNECT_PEER_WAIT, "connect_peer_wait"),
        ("DISCOVER", uapi::DISCOVER, "discover_nics"),
    ];
    for (name, request, argument) in ioctls {
        let line = format!("_IOWR({:#x}, {}, struct vianic_{argument})", uapi::IOCTL_TYPE, request & 0xff);
        writeln!(out, "#define VIANIC_IOC_{name} {line}").expect("a string takes text");
    }
    out.push_str("\n#endif /* VIANIC_ABI_H */\n");
    out
}

fn define(out: &mut String, name: &str, value: u64) {
    let value = match value {
        0..0x1000 => format!("{value}"),
        0x1000..=0x7fff_ffff => format!("{value:#x}"),
        0x8000_0000..=0xffff_ffff => format!("{value:#x}U"),
        _ => format!("{value:#x}ULL"),
    };
    writeln!(out, "#define VIANIC_{name} {value}").expect("a string takes text");
}

fn names<E: Names>(out: &mut String) {
    writeln!(out, "\n/* {} */", E::NAME).expect("a string takes text");
    let prefix = snake_case(E::NAME).to_uppercase();
    for (name, value) in E::CONSTANTS {
        define(out, &format!("{prefix}_{name}"), *value);
    }
}

fn structure<S: Layout>(out: &mut String) {
    let name = snake_case(S::NAME);
    writeln!(out, "\nstruct vianic_{name} {{").expect("a string takes text");
    for field in S::FIELDS {
        let (c_type, suffix) = c_type(field.c_type);
        writeln!(out, "\t{c_type} {}{suffix};", field.name).expect("a string takes text");
    }
    out.push_str("};\n");
}

fn c_type(c_type: CType) -> (String, String) {
    match c_type {
        CType::Unsigned(bytes) => (format!("__u{}", bytes * 8), String::new()),
        CType::Struct(name) => (format!("struct vianic_{}", snake_case(name)), String::new()),
        CType::Array(element, len) => {
            let (element, suffix) = self::c_type(*element);
            (element, format!("[{len}]{suffix}"))
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
