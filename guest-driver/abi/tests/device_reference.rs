//! Keeps the numbers in docs/device-reference.md true.

use std::collections::HashMap;

use vianic_abi::layout::{Layout, Names};
use vianic_abi::{
    attach, command, completion, descriptor, event, mrt, nic_memory, status, token, token_table,
};

/// The reference: for each table, the rows' cells without backquotes.
fn tables() -> Vec<Vec<Vec<String>>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/device-reference.md");
    let text = std::fs::read_to_string(path).expect("the device reference");
    let mut tables = Vec::new();
    for block in text.split("\n\n") {
        let rows: Vec<Vec<String>> = block
            .lines()
            .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
            .collect();
        if !rows.is_empty() {
            tables.push(rows);
        }
    }
    tables
}

fn number(cell: &str) -> u64 {
    match cell.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => cell.parse(),
    }
    .unwrap_or_else(|_| panic!("{cell} is not a number"))
}

fn check_struct<S: Layout>(tables: &[Vec<Vec<String>>]) {
    let expected: Vec<[String; 3]> = S::FIELDS
        .iter()
        .map(|field| [field.offset.to_string(), field.size.to_string(), field.name.to_owned()])
        .collect();
    let found = tables.iter().filter(|rows| rows[0][..2] == ["offset", "bytes"]).any(|rows| {
        rows.len() == expected.len() + 1
            && rows[1..].iter().zip(&expected).all(|(row, field)| {
                [number(&row[0]).to_string(), number(&row[1]).to_string(), row[2].clone()] == *field
            })
    });
    assert!(found, "docs/device-reference.md has no table, or a wrong one, for {}: {expected:?}", S::NAME);
}

fn check_enum<E: Names>(tables: &[Vec<Vec<String>>]) {
    let found = tables.iter().filter(|rows| rows[0][..2] == ["value", "name"]).any(|rows| {
        rows.len() == E::CONSTANTS.len() + 1
            && rows[1..]
                .iter()
                .zip(E::CONSTANTS)
                .all(|(row, (name, value))| number(&row[0]) == *value && row[1] == *name)
    });
    assert!(found, "docs/device-reference.md has no table, or a wrong one, for {}", E::NAME);
}

#[test]
fn structures_and_values_are_as_documented() {
    let tables = tables();
    macro_rules! structs { ($($t:ty),* $(,)?) => { $(check_struct::<$t>(&tables);)* }; }
    macro_rules! enums { ($($t:ty),* $(,)?) => { $(check_enum::<$t>(&tables);)* }; }
    structs!(
        nic_memory::ConfigSpace,
        nic_memory::Registers,
        nic_memory::Counters,
        attach::AttachRequest,
        attach::AttachReply,
        event::Event,
        token::Token,
        token::InlineBody,
        token::IndirectBody,
        descriptor::ControlSegment,
        descriptor::Segment,
        completion::Completion,
        mrt::MrtEntry,
        command::MrtChunk,
        command::CreateContext,
        command::Target,
        command::CreateVi,
        command::SetVi,
        command::Discover,
        command::NicEntry,
        command::NicList,
        command::ViAttributes,
        command::Connect,
        command::ConnectBlock,
        command::NetAddress,
        command::Cancel,
        command::Answer,
    );
    enums!(
        event::EventKind,
        nic_memory::LinkState,
        token_table::NicState,
        token::TokenKind,
        completion::CompletionKind,
        status::ErrorCode,
        status::Status,
        command::Opcode,
    );
}

#[test]
fn limits_are_as_documented() {
    let limits: HashMap<String, u64> = tables()
        .into_iter()
        .find(|rows| rows[0] == ["limit", "value", "constant"])
        .expect("the table of limits")
        .into_iter()
        .skip(1)
        .map(|row| (row[2].clone(), number(&row[1])))
        .collect();
    let expected: [(&str, u64); 11] = [
        ("MAX_CONTEXTS", vianic_abi::MAX_CONTEXTS.into()),
        ("MAX_VI", vianic_abi::MAX_VI.into()),
        ("MAX_CQ", vianic_abi::MAX_CQ.into()),
        ("MAX_DESCRIPTORS_PER_QUEUE", vianic_abi::MAX_DESCRIPTORS_PER_QUEUE.into()),
        ("MAX_SEGMENTS", vianic_abi::MAX_SEGMENTS.into()),
        ("MAX_TRANSFER_SIZE", vianic_abi::MAX_TRANSFER_SIZE.into()),
        ("NIC_ADDRESS_LEN", vianic_abi::NIC_ADDRESS_LEN as u64),
        ("MAX_DISCRIMINATOR_LEN", vianic_abi::MAX_DISCRIMINATOR_LEN as u64),
        ("MRT_MAX_ENTRIES", mrt::MRT_MAX_ENTRIES.into()),
        ("SHADOW_MRT_ENTRIES", nic_memory::SHADOW_MRT_ENTRIES.into()),
        ("MDL_ENTRIES", nic_memory::MDL_ENTRIES.into()),
    ];
    assert_eq!(limits, expected.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn addresses_in_memory_are_as_documented() {
    let rows: Vec<(u64, String)> = tables()
        .into_iter()
        .filter(|rows| rows[0][..2] == ["offset", "what"])
        .flat_map(|rows| rows.into_iter().skip(1))
        .filter_map(|row| Some((u64::from_str_radix(row[0].strip_prefix("0x")?, 16).ok()?, row[1].clone())))
        .collect();
    let expected: [(u64, &str); 11] = [
        (0, "Registers"),
        (nic_memory::COUNTERS_OFFSET, "Counters"),
        (nic_memory::SHADOW_MRT_OFFSET, "shadow MRT"),
        (nic_memory::MDL_OFFSET, "MDL"),
        (std::mem::offset_of!(token_table::Header, last_inserted_entry) as u64, "Last_Inserted_Entry"),
        (std::mem::offset_of!(token_table::Header, last_accepted_entry) as u64, "Last_Accepted_Entry"),
        (std::mem::offset_of!(token_table::Header, nic_state) as u64, "NicState"),
        (token_table::HEADER_SIZE as u64, "Post_Array"),
        (std::mem::offset_of!(completion::McqHeader, consumed) as u64, "consumed"),
        (std::mem::offset_of!(completion::McqHeader, stalled) as u64, "stalled"),
        (completion::MCQ_HEADER_SIZE as u64, "2^n entries of 32 bytes"),
    ];
    for (offset, what) in expected {
        assert!(
            rows.iter().any(|(at, text)| *at == offset && text.starts_with(what)),
            "docs/device-reference.md does not have {what} at {offset:#x}"
        );
    }
}
