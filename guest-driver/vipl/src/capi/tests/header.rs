//! `include/vipl.h` against this library and against what programs rely on.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use vianic_abi::descriptor::{Control, ControlSegment, DescriptorStatus, Segment};
use vianic_abi::status::{ErrorCode, ReliabilityLevel};

use crate::capi::types::{
    VipErrorDescriptor, VipMemAttributes, VipNicAttributes, VipResourceCode, VipReturn, VipViAttributes,
    VipViState,
};

/// Every function of the interface: the standard's 41 and one vendor's five.
const FUNCTIONS: [&str; 46] = [
    "VipOpenNic",
    "VipCloseNic",
    "VipQueryNic",
    "VipCreatePtag",
    "VipDestroyPtag",
    "VipRegisterMem",
    "VipDeregisterMem",
    "VipQueryMem",
    "VipSetMemAttributes",
    "VipCreateVi",
    "VipDestroyVi",
    "VipQueryVi",
    "VipSetViAttributes",
    "VipConnectWait",
    "VipConnectAccept",
    "VipConnectReject",
    "VipConnectRequest",
    "VipDisconnect",
    "VipConnectPeerRequest",
    "VipConnectPeerDone",
    "VipConnectPeerWait",
    "VipPostSend",
    "VipSendDone",
    "VipSendWait",
    "VipSendNotify",
    "VipPostRecv",
    "VipRecvDone",
    "VipRecvWait",
    "VipRecvNotify",
    "VipCreateCQ",
    "VipDestroyCQ",
    "VipResizeCQ",
    "VipCQDone",
    "VipCQWait",
    "VipCQNotify",
    "VipErrorCallback",
    "VipQuerySystemManagementInfo",
    "VipNSInit",
    "VipNSGetHostByName",
    "VipNSGetHostByAddr",
    "VipNSShutdown",
    "VipAddTagCQ",
    "VipRemoveTagCQ",
    "VipPostDeferredSends",
    "VipGetUserData",
    "VipSetUserData",
];

/// A type of the header: its size, and the offsets of its fields.
type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

/// What programs have compiled in on 64-bit Linux, whatever this library thinks.
const COMPILED_IN: &[Layout] = &[
    ("VIP_PVOID", 8, &[]),
    ("VIP_QOS", 8, &[]),
    ("VIP_NIC_HANDLE", 8, &[]),
    ("VIP_VI_HANDLE", 8, &[]),
    ("VIP_CQ_HANDLE", 8, &[]),
    ("VIP_CONN_HANDLE", 8, &[]),
    ("VIP_PROTECTION_HANDLE", 8, &[]),
    ("VIP_EVENT_HANDLE", 8, &[]),
    ("VIP_MEM_HANDLE", 4, &[]),
    ("VIP_BOOLEAN", 4, &[]),
    ("VIP_CHAR", 1, &[]),
    ("VIP_UCHAR", 1, &[]),
    ("VIP_SHORT", 2, &[]),
    ("VIP_USHORT", 2, &[]),
    ("VIP_LONG", 8, &[]),
    ("VIP_ULONG", 8, &[]),
    ("VIP_UINT8", 1, &[]),
    ("VIP_UINT16", 2, &[]),
    ("VIP_UINT32", 4, &[]),
    ("VIP_UINT64", 8, &[]),
    ("VIP_RELIABILITY_LEVEL", 2, &[]),
    ("VIP_RETURN", 4, &[]),
    ("VIP_VI_STATE", 4, &[]),
    ("VIP_PVOID64", 8, &[("AddressBits", 0), ("Address", 0), ("Descriptor", 0)]),
    (
        "VIP_CONTROL_SEGMENT",
        32,
        &[
            ("Next", 0),
            ("NextHandle", 8),
            ("SegCount", 12),
            ("Control", 14),
            ("Reserved", 16),
            ("ImmediateData", 20),
            ("Length", 24),
            ("Status", 28),
        ],
    ),
    ("VIP_ADDRESS_SEGMENT", 16, &[("Data", 0), ("Handle", 8), ("Reserved", 12)]),
    ("VIP_DATA_SEGMENT", 16, &[("Data", 0), ("Handle", 8), ("Length", 12)]),
    ("VIP_DESCRIPTOR_SEGMENT", 16, &[("Remote", 0), ("Local", 0)]),
    (
        "VIP_DESCRIPTOR",
        64,
        &[
            ("CS", 0),
            ("Control", 0),
            ("DS", 32),
            ("Data", 32),
            ("DS[1].Remote.Handle", 56),
            ("Data[1].Length", 60),
        ],
    ),
    (
        "VIP_NIC_ATTRIBUTES",
        200,
        &[
            ("Name", 0),
            ("HardwareVersion", 64),
            ("ProviderVersion", 72),
            ("NicAddressLen", 80),
            ("LocalNicAddress", 88),
            ("ThreadSafe", 96),
            ("MaxDiscriminatorLen", 100),
            ("MaxRegisterBytes", 104),
            ("MaxRegisterRegions", 112),
            ("MaxRegisterBlockBytes", 120),
            ("MaxVI", 128),
            ("MaxDescriptorsPerQueue", 136),
            ("MaxSegmentsPerDesc", 144),
            ("MaxCQ", 152),
            ("MaxCQEntries", 160),
            ("MaxTransferSize", 168),
            ("NativeMTU", 176),
            ("MaxPtags", 184),
            ("ReliabilityLevelSupport", 192),
            ("RDMAReadSupport", 194),
        ],
    ),
    (
        "VIP_VI_ATTRIBUTES",
        40,
        &[
            ("ReliabilityLevel", 0),
            ("MaxTransferSize", 8),
            ("QoS", 16),
            ("Ptag", 24),
            ("EnableRdmaWrite", 32),
            ("EnableRdmaRead", 36),
        ],
    ),
    ("VIP_MEM_ATTRIBUTES", 16, &[("Ptag", 0), ("EnableRdmaWrite", 8), ("EnableRdmaRead", 12)]),
    ("VIP_NET_ADDRESS", 6, &[("HostAddressLen", 0), ("DiscriminatorLen", 2), ("HostAddress", 4)]),
    (
        "VIP_ERROR_DESCRIPTOR",
        48,
        &[
            ("NicHandle", 0),
            ("ViHandle", 8),
            ("CQHandle", 16),
            ("DescriptorPtr", 24),
            ("OpCode", 32),
            ("ResourceCode", 40),
            ("ErrorCode", 44),
        ],
    ),
    ("VIP_AUTODISCOVERY_LIST", 24, &[("NumberOfHops", 0), ("ADAddrArray", 8), ("NumAdAddrs", 16)]),
];

/// As a C compiler sees it: expressions and what they must be.
fn facts() -> Vec<(String, i64)> {
    let mut facts: Vec<(String, i64)> = Vec::new();
    let mut layout = |name: &str, size: usize, fields: &[(&str, usize)]| {
        let number = |bytes: usize| i64::try_from(bytes).unwrap();
        facts.push((format!("sizeof({name})"), number(size)));
        for (field, offset) in fields {
            facts.push((format!("offsetof({name}, {field})"), number(*offset)));
        }
    };
    macro_rules! same {
        ($c:literal, $rust:ty, { $($field:literal = $member:ident),* $(,)? }) => {
            layout($c, size_of::<$rust>(), &[$(($field, offset_of!($rust, $member))),*]);
        };
    }
    same!("VIP_NIC_ATTRIBUTES", VipNicAttributes, {
        "Name" = name, "HardwareVersion" = hardware_version, "ProviderVersion" = provider_version,
        "NicAddressLen" = nic_address_len, "LocalNicAddress" = local_nic_address, "ThreadSafe" = thread_safe,
        "MaxDiscriminatorLen" = max_discriminator_len, "MaxRegisterBytes" = max_register_bytes,
        "MaxRegisterRegions" = max_register_regions, "MaxRegisterBlockBytes" = max_register_block_bytes,
        "MaxVI" = max_vi, "MaxDescriptorsPerQueue" = max_descriptors_per_queue,
        "MaxSegmentsPerDesc" = max_segments_per_desc, "MaxCQ" = max_cq, "MaxCQEntries" = max_cq_entries,
        "MaxTransferSize" = max_transfer_size, "NativeMTU" = native_mtu, "MaxPtags" = max_ptags,
        "ReliabilityLevelSupport" = reliability_level_support, "RDMAReadSupport" = rdma_read_support,
    });
    same!("VIP_VI_ATTRIBUTES", VipViAttributes, {
        "ReliabilityLevel" = reliability_level, "MaxTransferSize" = max_transfer_size, "QoS" = qos, "Ptag" = ptag,
        "EnableRdmaWrite" = enable_rdma_write, "EnableRdmaRead" = enable_rdma_read,
    });
    same!("VIP_MEM_ATTRIBUTES", VipMemAttributes, {
        "Ptag" = ptag, "EnableRdmaWrite" = enable_rdma_write, "EnableRdmaRead" = enable_rdma_read,
    });
    same!("VIP_ERROR_DESCRIPTOR", VipErrorDescriptor, {
        "NicHandle" = nic_handle, "ViHandle" = vi_handle, "CQHandle" = cq_handle, "DescriptorPtr" = descriptor,
        "OpCode" = op_code, "ResourceCode" = resource_code, "ErrorCode" = error_code,
    });
    same!("VIP_CONTROL_SEGMENT", ControlSegment, {
        "Next" = next, "NextHandle" = next_handle, "SegCount" = segment_count, "Control" = control,
        "Reserved" = reserved, "ImmediateData" = immediate, "Length" = length, "Status" = status,
    });
    same!("VIP_DATA_SEGMENT", Segment, { "Data" = address, "Handle" = handle, "Length" = length });
    same!("VIP_ADDRESS_SEGMENT", Segment, { "Data" = address, "Handle" = handle, "Reserved" = length });

    for (name, size, fields) in COMPILED_IN {
        layout(name, *size, fields);
    }

    let mut constant = |name: String, value: u64| facts.push((name, i64::try_from(value).unwrap()));
    for (prefix, all) in
        [("VIP_", VipReturn::ALL), ("VIP_STATE_", VipViState::ALL), ("VIP_RESOURCE_", VipResourceCode::ALL)]
    {
        for (name, value) in all {
            constant(format!("{prefix}{name}"), u64::try_from(*value).unwrap());
        }
    }
    for (name, value) in <ErrorCode as vianic_abi::layout::Names>::CONSTANTS {
        constant(format!("VIP_ERROR_{name}"), *value);
    }
    constant("VIP_ERROR".into(), 11);
    constant("VIP_RESOURCE_CQ".into(), 2);
    constant("VIP_SERVICE_UNRELIABLE".into(), ReliabilityLevel::UNRELIABLE.0.into());
    constant("VIP_SERVICE_RELIABLE_DELIVERY".into(), ReliabilityLevel::RELIABLE_DELIVERY.0.into());
    constant("VIP_SERVICE_RELIABLE_RECEPTION".into(), ReliabilityLevel::RELIABLE_RECEPTION.0.into());
    constant("VIP_CONTROL_OP_RDMAWRITE".into(), 1);
    constant("VIP_CONTROL_OP_RDMAREAD".into(), 2);
    constant("VIP_CONTROL_OP_MASK".into(), Control::OPERATION_MASK.into());
    constant("VIP_CONTROL_IMMEDIATE".into(), Control::IMMEDIATE.bits().into());
    constant("VIP_CONTROL_QFENCE".into(), Control::QUEUE_FENCE.bits().into());
    constant("VIP_CONTROL_RESERVED".into(), Control::RESERVED_MASK.into());
    for (name, status) in [
        ("DONE", DescriptorStatus::DONE),
        ("FORMAT_ERROR", DescriptorStatus::FORMAT_ERROR),
        ("PROTECTION_ERROR", DescriptorStatus::PROTECTION_ERROR),
        ("LENGTH_ERROR", DescriptorStatus::LENGTH_ERROR),
        ("PARTIAL_ERROR", DescriptorStatus::PARTIAL_ERROR),
        ("DESC_FLUSHED_ERROR", DescriptorStatus::FLUSHED_ERROR),
        ("TRANSPORT_ERROR", DescriptorStatus::TRANSPORT_ERROR),
        ("RDMA_PROT_ERROR", DescriptorStatus::RDMA_PROTECTION_ERROR),
        ("REMOTE_DESC_ERROR", DescriptorStatus::REMOTE_DESCRIPTOR_ERROR),
        ("OP_RECEIVE", DescriptorStatus::OP_RECEIVE),
        ("OP_RDMA_WRITE", DescriptorStatus::OP_RDMA_WRITE),
        ("OP_REMOTE_RDMA_WRITE", DescriptorStatus::OP_REMOTE_RDMA_WRITE),
        ("OP_RDMA_READ", DescriptorStatus::OP_RDMA_READ),
        ("IMMEDIATE", DescriptorStatus::IMMEDIATE),
    ] {
        constant(format!("VIP_STATUS_{name}"), status.bits().into());
    }
    constant("VIP_STATUS_ERROR_MASK".into(), DescriptorStatus::ERROR_MASK.into());
    constant("VIP_STATUS_OP_MASK".into(), 0x0007_0000);
    constant("VIP_STATUS_RESERVED".into(), 0xfff0_fe00);
    constant("VIP_INFINITE".into(), 0xffff_ffff);
    constant("VIP_DESCRIPTOR_ALIGNMENT".into(), 64);
    constant("VIP_SMI_AUTODISCOVERY".into(), 1);
    facts
}

/// A program that says which facts are wrong, and uses every function and both spellings.
fn program() -> String {
    let mut program = String::from("#include <vipl.h>\n#include <stddef.h>\n#include <stdio.h>\n\n");
    program += "static int check(const char *fact, long is, long expected) {\n";
    program += "    if (is != expected) printf(\"%s is %ld, not %ld\\n\", fact, is, expected);\n";
    program += "    return is != expected;\n}\n\n";
    program += "typedef void (*function)(void);\n";
    program += "int main(void) {\n    int wrong = 0;\n    VIP_DESCRIPTOR d;\n    function functions[46];\n";
    for (index, function) in FUNCTIONS.iter().enumerate() {
        writeln!(program, "    functions[{index}] = (function){function};").unwrap();
    }
    program += "    for (wrong = 0; wrong < 46; wrong++) if (!functions[wrong]) return 1;\n    wrong = 0;\n";
    program += "    d.CS.Length = 5; d.DS[0].Local.Handle = 6; d.Data[0].Data.Address = &d;\n";
    program += "    wrong += d.Control.Length != 5 || d.Data[0].Handle != 6 || d.DS[0].Remote.Data.Descriptor != &d;\n";
    for (expression, value) in facts() {
        writeln!(program, "    wrong += check(\"{expression}\", (long)({expression}), {value}L);").unwrap();
    }
    program + "    return wrong != 0;\n}\n"
}

fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// Whether the compiler knows a standard.
fn knows(compiler: &str, language: &str, standard: &str) -> bool {
    let arguments = [&format!("-std={standard}"), "-fsyntax-only", "-x", language, "/dev/null"];
    Command::new(compiler).args(arguments).output().expect(compiler).status.success()
}

fn compile(compiler: &str, language: &str, standard: &str, source: &Path, more: &[&str]) {
    let mut command = Command::new(compiler);
    command
        .args([&format!("-std={standard}"), "-Wall", "-Wextra", "-pedantic", "-Werror", "-x", language])
        .arg("-I")
        .arg(include_dir())
        .arg(source)
        .args(more);
    let output = command.output().expect(compiler);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_is_clean_in_every_standard() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("program");
    std::fs::write(&source, program()).unwrap();
    let c = ["c89", "gnu89", "c99", "c11", "c17", "c2x", "c23"];
    let cpp = ["c++98", "c++11", "c++17", "c++20", "c++23"];
    let mut compiled = 0;
    for (compiler, language, standards) in [("cc", "c", &c[..]), ("c++", "c++", &cpp[..])] {
        for standard in standards.iter().filter(|standard| knows(compiler, language, standard)) {
            for define in ["-DNOTHING", "-DVIPL095"] {
                compile(compiler, language, standard, &source, &["-fsyntax-only", define]);
                compiled += 1;
            }
        }
    }
    assert!(compiled >= 8, "too few standards known to the compilers here");
}

#[test]
fn layouts_and_values_are_what_programs_were_compiled_with() {
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("program"), dir.path().join("binary"));
    // The functions' addresses are the library's affair; here they only have to have their types.
    let stubs: String = FUNCTIONS.iter().fold(String::new(), |stubs, name| stubs + &format!("int {name};\n"));
    let stubs_source = dir.path().join("stubs.c");
    std::fs::write(&stubs_source, stubs).unwrap();
    std::fs::write(&source, program()).unwrap();
    let more = ["-o", binary.to_str().unwrap(), stubs_source.to_str().unwrap()];
    compile("cc", "c", "c11", &source, &more);
    let output = Command::new(&binary).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
