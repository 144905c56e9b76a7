//! `vianic doctor`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::Args;
use vianic::probe::{Origin, Qemu};
use vianic::{accel, workspace};
use vianic_images::cache::Cache;

use super::output;

/// Says what vianic has found on this machine. Fails if something is missing.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The QEMU to look at, instead of the one on PATH or the one from Debian's packages.
    #[arg(long, value_name = "PATH", env = "VIANIC_QEMU")]
    qemu: Option<PathBuf>,
    /// The vianic-device to look at.
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    missing: bool,
}

impl Findings {
    fn note(&self, what: &str, found: impl Display) -> Result<()> {
        output::print(format!("{what:<14} {found}\n").as_bytes())
    }

    fn need<T, E: Display>(
        &mut self,
        what: &str,
        found: Result<T, E>,
        show: impl FnOnce(T) -> String,
    ) -> Result<()> {
        self.missing |= found.is_err();
        self.note(what, found.map_or_else(|error| format!("MISSING: {error}"), show))
    }
}

impl Doctor {
    pub(super) fn execute(self) -> Result<u8> {
        let mut findings = Findings::default();
        findings.need("source tree", workspace::root(), |path| path.display().to_string())?;
        findings.need("vianic-device", workspace::device(self.device.as_deref()), |path| {
            path.display().to_string()
        })?;
        findings.need("cache", Cache::open(), |cache| cache.root().display().to_string())?;
        for (program, why) in [
            ("cargo", "builds the guest's programs"),
            ("apt-get", "fetches packages"),
            ("dpkg-deb", "unpacks them"),
        ] {
            let found = Command::new(program).arg("--version").output();
            findings.need(program, found, |output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                format!("{} ({why})", text.lines().next().unwrap_or_default())
            })?;
        }
        if self.qemu.is_none() {
            match Qemu::on_path() {
                None => findings.note("QEMU on PATH", "none (not needed)")?,
                Some(Ok(qemu)) => findings.note("QEMU on PATH", format!("{} is suitable", qemu.version))?,
                Some(Err(error)) => findings.note("QEMU on PATH", format!("not suitable: {error}"))?,
            }
        }
        findings.need("QEMU", Qemu::find(self.qemu.as_deref()), |qemu| {
            let origin = match qemu.origin {
                Origin::Given => "as given",
                other => other.describe(),
            };
            format!("{} {}, {origin}", qemu.version, qemu.binary.display())
        })?;
        findings.note("/dev/kvm", accel::kvm_refused().map_or("can be opened".to_owned(), |why| why))?;
        findings.note("KVM", accel::known_trial())?;
        Ok(u8::from(findings.missing))
    }
}
