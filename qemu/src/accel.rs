//! What executes the guest's code: KVM where it really runs a guest, else TCG.

use std::fs::{self, File};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vianic_images::cache::Cache;

use crate::error::{Error, Result};
use crate::probe::Qemu;
use crate::run_dir::RunDir;
use crate::vm::{Vm, VmConfig};

/// How long a guest may take under KVM to show that KVM works. Where it does, it takes two seconds.
const TRIAL_LIMIT: Duration = Duration::from_secs(30);

/// The file in the cache that remembers the trial.
const TRIAL_FILE: &str = "kvm-trial.json";

/// The user's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// KVM if it runs a guest, else TCG.
    #[default]
    Auto,
    /// KVM and nothing else.
    Kvm,
    /// TCG, QEMU's translator.
    Tcg,
}

/// What executes a guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// A decision and why it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What will be used.
    pub accelerator: Accelerator,
    /// Why.
    pub reason: String,
}

/// What a trial of KVM showed, as the cache keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    /// What it is valid for: this boot of the host and this QEMU binary, and for an outcome that the guest
    /// may be to blame for, this image.
    key: String,
    /// Why KVM does not work; nothing if it does.
    failure: Option<String>,
}

/// Decides for guests such as `guest`, which is booted under KVM once to find out.
pub fn decide(choice: Choice, guest: &VmConfig) -> Result<Decision> {
    let tcg = |reason: String| Decision { accelerator: Accelerator::Tcg, reason };
    match choice {
        Choice::Tcg => Ok(tcg("as demanded".to_owned())),
        Choice::Kvm => match kvm_refused() {
            Some(reason) => Err(Error::NoKvm { reason }),
            None => Ok(Decision { accelerator: Accelerator::Kvm, reason: "as demanded".to_owned() }),
        },
        Choice::Auto => {
            if let Some(reason) = kvm_refused() {
                return Ok(tcg(reason));
            }
            Ok(match remembered_trial(guest)? {
                None => {
                    Decision { accelerator: Accelerator::Kvm, reason: "KVM runs a guest here".to_owned() }
                }
                Some(failure) => tcg(format!("KVM does not run a guest here: {failure}")),
            })
        }
    }
}

/// Why KVM cannot even be tried, if so.
pub fn kvm_refused() -> Option<String> {
    File::options().read(true).write(true).open("/dev/kvm").err().map(|error| format!("/dev/kvm: {error}"))
}

/// The outcome of the trial on this boot of the host, which is made if it was not.
fn remembered_trial(guest: &VmConfig) -> Result<Option<String>> {
    let cache = Cache::open().map_err(Error::image("the cache"))?;
    let host_key = key(&guest.qemu)?;
    let image_key = format!("{host_key} {}", guest.initrd.display());
    let path = cache.root().join(TRIAL_FILE);
    let doing = || format!("remember in {} whether KVM works", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io(doing()))?;
    // Whoever comes while a trial is under way waits for its outcome; the trial has a limit.
    file.lock().map_err(Error::io(doing()))?;
    if let Some(trial) = read(&mut file).filter(|trial| trial.key == host_key || trial.key == image_key) {
        return Ok(trial.failure);
    }
    log::info!("trying whether KVM runs a guest here (once per boot of this machine)");
    let (failure, blame) = try_kvm(guest)?;
    let key = match blame {
        Blame::Host => host_key,
        Blame::Image => image_key,
    };
    let trial = Trial { key, failure };
    let text = serde_json::to_string(&trial).unwrap_or_default();
    fs::write(&path, text).map_err(Error::io(doing()))?;
    Ok(trial.failure)
}

/// In words: what the last trial of KVM showed.
pub fn known_trial() -> String {
    let trial = Cache::open().ok().and_then(|cache| File::open(cache.root().join(TRIAL_FILE)).ok());
    match trial.and_then(|mut file| read(&mut file)) {
        None => "not tried yet: the first run with --accel auto does".to_owned(),
        Some(Trial { failure: None, .. }) => "ran a guest when it was tried".to_owned(),
        Some(Trial { failure: Some(why), .. }) => format!("did not run a guest when it was tried: {why}"),
    }
}

/// What is remembered; nothing if there is none or it is of another version.
fn read(file: &mut File) -> Option<Trial> {
    serde_json::from_reader(file).ok()
}

/// What an outcome is valid for.
fn key(qemu: &Qemu) -> Result<String> {
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot_id = fs::read_to_string(boot).map_err(Error::io(format!("read {boot}")))?;
    let binary = qemu.binary.display();
    let modified = fs::metadata(&qemu.binary)
        .and_then(|data| data.modified())
        .map_err(Error::io(format!("look at {binary}")))?;
    let seconds = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(format!("{} {binary} {seconds}", boot_id.trim()))
}

/// What decides the outcome of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    Host,
    Image,
}

/// Boots a small guest under KVM up to its agent. Returns why that failed, if it did.
fn try_kvm(guest: &VmConfig) -> Result<(Option<String>, Blame)> {
    let run_dir = RunDir::new()?;
    let trial = VmConfig {
        name: "kvm-trial".to_owned(),
        accelerator: Accelerator::Kvm,
        cpus: 1,
        cards: vec![],
        qemu_arguments: vec![],
        // So that the kernel says how far it gets.
        kernel_arguments: format!("{} loglevel=7", guest.kernel_arguments),
        boot_limit: TRIAL_LIMIT,
        ..guest.clone()
    };
    match Vm::launch(&trial, &run_dir) {
        Ok(_) => Ok((None, Blame::Host)),
        Err(Error::Vm(failure)) => {
            log::debug!("{failure}");
            Ok((Some(failure.reason.to_string()), blame(&failure.serial)))
        }
        Err(error) => Err(error),
    }
}

/// A kernel that has started its init runs: what fails later is the image's fault and may be mended.
fn blame(serial: &str) -> Blame {
    if serial.contains("as init process") { Blame::Image } else { Blame::Host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_remembered_as_written() {
        let trial = Trial { key: "boot qemu 1".to_owned(), failure: Some("internal error".to_owned()) };
        let text = serde_json::to_string(&trial).unwrap();
        assert_eq!(serde_json::from_str::<Trial>(&text).unwrap(), trial);
    }

    #[test]
    fn what_fails_after_init_has_started_is_not_the_hosts_fault() {
        assert_eq!(blame("[ 1.0] Run /init as init process\n[ 1.1] Kernel panic"), Blame::Image);
        assert_eq!(blame("[ 0.0] Linux version 6.12"), Blame::Host);
        assert_eq!(blame(""), Blame::Host);
    }

    #[test]
    fn tcg_needs_no_trial() {
        let decision = decide(Choice::Tcg, &crate::vm::tests::config()).unwrap();
        assert_eq!(decision.accelerator, Accelerator::Tcg);
    }
}
