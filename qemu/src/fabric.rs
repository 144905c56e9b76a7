//! A whole run: guests, the cards in them and the switch that joins the cards.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use crate::accel::{self, Choice, Decision};
use crate::address::Address;
use crate::card::{Card, CardConfig};
use crate::drivers;
use crate::error::{Error, Result};
use crate::hosts;
use crate::image::GuestImage;
use crate::network::Network;
use crate::probe::Qemu;
use crate::run_dir::RunDir;
use crate::vm::{OnReboot, Vm, VmConfig};
use crate::workspace;
use serde_json::Value;

/// Most NICs in one run: QEMU gives a guest few slots, and one process serves all NICs.
const MOST_NICS: usize = 256;

/// A run to be started.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// The image that every guest boots.
    pub image: GuestImage,
    /// How many guests.
    pub vms: usize,
    /// How many NICs in each guest.
    pub cards: usize,
    /// Memory of each guest in MiB.
    pub memory_mib: u32,
    /// Processors of each guest.
    pub cpus: u32,
    /// What executes the guests' code.
    pub accelerator: Choice,
    /// The QEMU to use, if not the one that is found.
    pub qemu: Option<PathBuf>,
    /// The `vianic-device` to use, if not the one that is found.
    pub device: Option<PathBuf>,
    /// What a guest's reboot leads to.
    pub on_reboot: OnReboot,
    /// Whether two guests have an ordinary network as well: a virtio network card each, joined by a Unix datagram socket.
    pub network: bool,
    /// More of the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// More arguments for QEMU.
    pub qemu_arguments: Vec<OsString>,
    /// More arguments for `vianic-device`.
    pub device_arguments: Vec<String>,
    /// How long a guest may take to boot.
    pub boot_limit: Duration,
}

impl FabricConfig {
    /// One guest with one NIC.
    pub fn new(image: GuestImage) -> Self {
        Self {
            image,
            vms: 1,
            cards: 1,
            memory_mib: 512,
            cpus: 2,
            accelerator: Choice::Auto,
            qemu: None,
            device: None,
            on_reboot: OnReboot::Exit,
            network: false,
            kernel_arguments: vec![],
            qemu_arguments: vec![],
            device_arguments: vec![],
            boot_limit: Duration::from_secs(240),
        }
    }
}

/// A run. Dropping it kills the guests, then the card process, and removes its directory.
#[derive(Debug)]
pub struct Fabric {
    // In the order in which they must go: QEMU dies badly when a card goes first.
    vms: Vec<Vm>,
    card: Option<Card>,
    run_dir: RunDir,
    addresses: Vec<Vec<Address>>,
    decision: Decision,
    qemu: Qemu,
}

impl Fabric {
    /// Starts the cards and all guests, and waits until every guest's agent answers.
    pub fn launch(config: &FabricConfig) -> Result<Self> {
        Self::launch_in(RunDir::new()?, config).map_err(|(error, _)| error)
    }

    /// As [`Fabric::launch`], in a given directory, which comes back with an error so that its logs can be kept.
    pub fn launch_in(run_dir: RunDir, config: &FabricConfig) -> Result<Self, (Error, RunDir)> {
        match start(&run_dir, config) {
            Ok((vms, card, addresses, decision, qemu)) => {
                Ok(Self { vms, card, run_dir, addresses, decision, qemu })
            }
            Err(error) => Err((error, run_dir)),
        }
    }

    /// The guests.
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// The addresses of a guest's NICs.
    pub fn addresses(&self, vm: usize) -> &[Address] {
        self.addresses.get(vm).map(Vec::as_slice).unwrap_or_default()
    }

    /// The card process, if there are cards.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// The card process, to be killed by a test.
    pub fn card_mut(&mut self) -> Option<&mut Card> {
        self.card.as_mut()
    }

    /// What the cards have counted; `Null` without cards.
    pub fn stats(&self) -> Result<Value> {
        self.card.as_ref().map_or(Ok(Value::Null), Card::stats)
    }

    /// Makes sure that programs in the guests can open all NICs.
    ///
    /// # Errors
    /// [`Error::MissingNics`], which says what the guest's driver says.
    pub fn require_nics(&self) -> Result<()> {
        self.vms.iter().zip(&self.addresses).try_for_each(|(vm, nics)| drivers::check(vm, nics.len()))
    }

    /// What executes the guests' code, and why.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The QEMU that runs.
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// Copies all logs to a directory.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        self.run_dir.keep_logs(to)
    }

    /// Ends the guests, then the cards; says whether the card process ended as it should.
    pub fn stop(mut self) -> Result<()> {
        for vm in self.vms.drain(..) {
            vm.kill()?;
        }
        self.card.take().map_or(Ok(()), Card::stop)
    }
}

type Parts = (Vec<Vm>, Option<Card>, Vec<Vec<Address>>, Decision, Qemu);

fn start(run_dir: &RunDir, config: &FabricConfig) -> Result<Parts> {
    let addresses = addresses(config.vms, config.cards)?;
    let qemu = Qemu::find(config.qemu.as_deref())?;
    let mut guest = guest(config, &qemu);
    let decision = accel::decide(config.accelerator, &guest)?;
    guest.accelerator = decision.accelerator;
    let card = match addresses.concat() {
        none if none.is_empty() => None,
        addresses => {
            let program = workspace::device(config.device.as_deref())?;
            let arguments = config.device_arguments.clone();
            Some(Card::launch(&CardConfig { program, addresses, arguments }, run_dir)?)
        }
    };
    let mut sockets = card.iter().flat_map(|card| card.sockets().iter().cloned());
    let mut guests = Vec::new();
    for vm in 0..config.vms {
        let network = if config.network { Some(Network::of(vm, config.vms, run_dir)?) } else { None };
        guests.push(VmConfig {
            name: hosts::name(vm),
            kernel_arguments: format!("{} hostname={}", guest.kernel_arguments, hosts::name(vm)),
            files: vec![hosts::file(&addresses)],
            cards: sockets.by_ref().take(config.cards).collect(),
            network,
            ..guest.clone()
        });
    }
    let vms = guests.iter().map(|guest| Vm::start(guest, run_dir)).collect::<Result<Vec<_>>>()?;
    if let Some(card) = &card {
        let agents: Vec<_> = vms.iter().map(Vm::weak_agent).collect();
        // A guest without its card may go on and say nothing for ever.
        card.on_unwanted_end(move || {
            agents
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|agent| agent.hang_up("the card process has ended"));
        })?;
    }
    // They boot at the same time, whoever is waited for first.
    vms.iter().try_for_each(Vm::wait_ready)?;
    for (vm, nics) in vms.iter().zip(&addresses) {
        drivers::warn(vm, nics.len())?;
    }
    Ok((vms, card, addresses, decision, qemu))
}

fn guest(config: &FabricConfig, qemu: &Qemu) -> VmConfig {
    let mut kernel_arguments = config.image.cmdline.clone();
    for argument in &config.kernel_arguments {
        kernel_arguments.push(' ');
        kernel_arguments.push_str(argument);
    }
    VmConfig {
        name: "guest".to_owned(),
        qemu: qemu.clone(),
        accelerator: accel::Accelerator::Tcg,
        memory_mib: config.memory_mib,
        cpus: config.cpus,
        kernel: config.image.kernel.clone(),
        initrd: config.image.initrd.clone(),
        kernel_arguments,
        files: vec![],
        cards: vec![],
        network: None,
        on_reboot: config.on_reboot,
        qemu_arguments: config.qemu_arguments.clone(),
        boot_limit: config.boot_limit,
    }
}

/// The addresses of each guest's NICs.
fn addresses(vms: usize, cards: usize) -> Result<Vec<Vec<Address>>> {
    if vms.saturating_mul(cards) > MOST_NICS {
        return Err(Error::TooManyCards { most: MOST_NICS });
    }
    let mut all = (0..u16::MAX).map(Address::nth);
    Ok((0..vms).map(|_| all.by_ref().take(cards).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_through_all_guests() {
        let addresses = addresses(2, 2).unwrap();
        assert_eq!(addresses[0], [Address::nth(0), Address::nth(1)]);
        assert_eq!(addresses[1], [Address::nth(2), Address::nth(3)]);
        assert!(super::addresses(1000, 1000).is_err());
    }
}
