//! What `vip-info` shows.

use anyhow::Context as _;
use serde_json::{Value, json};
use vianic_abi::nic_memory::{Counters, LinkState, Registers};
use vianic_abi::status::ReliabilityLevel;
use vipl::{Error, Nic, NicAddress};
use zerocopy::IntoBytes as _;

/// A NIC as it was found.
#[derive(Debug)]
pub struct NicReport {
    name: String,
    registers: Registers,
    link: LinkState,
    counters: Counters,
}

/// Looks at the NIC of that name.
///
/// # Errors
/// If there is none, or it cannot be used.
pub fn inspect(name: &str) -> anyhow::Result<NicReport> {
    let nic = Nic::open(name).with_context(|| format!("cannot open NIC {name}"))?;
    let report = NicReport {
        name: name.into(),
        registers: nic.registers()?,
        link: nic.link_state()?,
        counters: nic.counters()?,
    };
    Ok(report)
}

/// Looks at all NICs that have generic names.
///
/// # Errors
/// If one cannot be used.
pub fn inspect_all() -> anyhow::Result<Vec<NicReport>> {
    let mut reports = Vec::new();
    for number in 0.. {
        match inspect(&format!("nic{number}")) {
            Ok(report) => reports.push(report),
            Err(error) if matches!(error.downcast_ref(), Some(Error::InvalidHandle(_))) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(reports)
}

impl NicReport {
    /// The report as JSON.
    #[must_use]
    pub fn json(&self, with_counters: bool) -> Value {
        let registers = &self.registers;
        let mut report = json!({
            "name": self.name,
            "address": NicAddress(registers.nic_address).to_string(),
            "link": link_name(self.link),
            "abi_version": registers.abi_version,
            "reliability_levels": level_names(registers.reliability_levels),
            "rdma_read_levels": level_names(registers.rdma_read_levels),
        });
        for (name, value) in self.limits() {
            report[name] = json!(value);
        }
        if with_counters {
            report["counters"] =
                self.counters().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        }
        report
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self, with_counters: bool) -> String {
        let registers = &self.registers;
        let levels = |levels| match &level_names(levels)[..] {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let mut lines = vec![
            ("address", NicAddress(registers.nic_address).to_string()),
            ("link", link_name(self.link)),
            ("abi_version", registers.abi_version.to_string()),
            ("reliability_levels", levels(registers.reliability_levels)),
            ("rdma_read_levels", levels(registers.rdma_read_levels)),
        ];
        lines.extend(self.limits().map(|(name, value)| (name, value.to_string())));
        let mut text = format!("{}\n", self.name);
        for (name, value) in lines {
            text += &format!("    {:<24}{value}\n", format!("{name}:"));
        }
        if with_counters {
            text += "    counters:\n";
            for (name, value) in self.counters() {
                text += &format!("        {:<28}{value}\n", format!("{name}:"));
            }
        }
        text
    }

    fn limits(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let registers = &self.registers;
        [
            ("max_contexts", registers.max_contexts),
            ("max_vi", registers.max_vi),
            ("max_cq", registers.max_cq),
            ("max_descriptors", registers.max_descriptors),
            ("max_segments", registers.max_segments.into()),
            ("max_transfer_size", registers.max_transfer_size),
            ("native_mtu", registers.native_mtu),
            ("max_regions", registers.max_regions),
            ("max_discriminator_len", registers.max_discriminator_len),
        ]
        .into_iter()
    }

    fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = self.counters.as_bytes().chunks_exact(size_of::<u64>());
        let values = words.map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        Counters::NAMES.iter().copied().zip(values)
    }
}

fn link_name(link: LinkState) -> String {
    link.name().map_or_else(|| format!("unknown ({})", link.0), str::to_lowercase)
}

/// The names of the levels in an OR of them.
fn level_names(levels: u16) -> Vec<&'static str> {
    [
        (ReliabilityLevel::UNRELIABLE, "unreliable"),
        (ReliabilityLevel::RELIABLE_DELIVERY, "delivery"),
        (ReliabilityLevel::RELIABLE_RECEPTION, "reception"),
    ]
    .into_iter()
    .filter_map(|(level, name)| (levels & level.0 != 0).then_some(name))
    .collect()
}
