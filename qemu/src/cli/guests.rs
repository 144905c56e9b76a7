//! The options of every command that boots guests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vianic::accel::Choice;
use vianic::fabric::FabricConfig;
use vianic::image::{self, ImageOptions};
use vianic::workspace;

use super::values;

/// Options of the guests and of what runs them.
#[derive(Debug, Clone, Args)]
pub(super) struct Guests {
    /// Memory of each guest.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = values::memory)]
    memory: u32,
    /// Processors of each guest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// What executes the guests: auto takes KVM if it runs a guest on this machine, else TCG.
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// The QEMU to use, instead of the one on PATH or the one from Debian's packages.
    #[arg(long, value_name = "PATH", env = "VIANIC_QEMU")]
    qemu: Option<PathBuf>,
    /// The vianic-device to use, instead of the one beside vianic [env: VIANIC_DEVICE=].
    #[arg(long, value_name = "PATH")]
    pub(super) device: Option<PathBuf>,
    /// More Debian packages in the guests (repeatable).
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Leave vianic's kernel module out, for a guest that brings a driver of its own.
    #[arg(long)]
    no_driver: bool,
    /// Have the NICs' links lose, corrupt and break off messages: seed=NUMBER,drop=RATE,corrupt=RATE,break=RATE, where RATE is a
    /// probability or next:NUMBER (see vianic-device --help).
    #[arg(long, value_name = "PLAN")]
    faults: Option<String>,
    /// One more argument for vianic-device (repeatable).
    #[arg(long = "device-arg", value_name = "ARG", allow_hyphen_values = true)]
    device_arguments: Vec<String>,
    /// One more argument for QEMU (repeatable).
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    qemu_arguments: Vec<OsString>,
    /// One more argument for the guests' kernel (repeatable).
    #[arg(long = "kernel-arg", value_name = "ARG", allow_hyphen_values = true)]
    kernel_arguments: Vec<String>,
    /// How long a guest may take to boot.
    #[arg(long, value_name = "TIME", default_value = "4m", value_parser = values::duration)]
    boot_timeout: Duration,
    /// Copy all logs (serial consoles, QEMU, the card, its counters) to this directory at the end.
    #[arg(long, value_name = "DIR")]
    pub(super) keep_logs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Accel {
    Auto,
    Kvm,
    Tcg,
}

impl Guests {
    /// Provides the image and says what to start. `limit` bounds the boot as well.
    pub(super) fn config(
        &self,
        vms: usize,
        cards: usize,
        limit: Option<Duration>,
    ) -> vianic::Result<FabricConfig> {
        if cards > 0 {
            // Before the long work: this is what users forget to build.
            workspace::device(self.device.as_deref())?;
        }
        let image =
            image::ensure(&ImageOptions { packages: self.packages.clone(), no_driver: self.no_driver })?;
        Ok(FabricConfig {
            vms,
            cards,
            memory_mib: self.memory,
            cpus: self.cpus,
            accelerator: match self.accel {
                Accel::Auto => Choice::Auto,
                Accel::Kvm => Choice::Kvm,
                Accel::Tcg => Choice::Tcg,
            },
            qemu: self.qemu.clone(),
            device: self.device.clone(),
            kernel_arguments: self.kernel_arguments.clone(),
            qemu_arguments: self.qemu_arguments.clone(),
            device_arguments: self.device_arguments(),
            boot_limit: limit.map_or(self.boot_timeout, |limit| limit.min(self.boot_timeout)),
            ..FabricConfig::new(image)
        })
    }

    fn device_arguments(&self) -> Vec<String> {
        let faults = self.faults.iter().map(|plan| format!("--faults={plan}"));
        faults.chain(self.device_arguments.iter().cloned()).collect()
    }
}
