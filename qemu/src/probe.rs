//! Finds a QEMU that can host the card, by asking the binary what it has rather than reading its version.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::child::Child;
use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::provision;
use crate::qmp::Qmp;

/// The QEMU device that the card appears as.
pub(crate) const DEVICE: &str = "vhost-user-test-device-pci";

/// The object type that exists only where vhost-user devices can offer shared memory regions.
const SHARED_MEMORY: &str = "virtio-shared-memory-mapping";

/// What the device must let us set.
const PROPERTIES: [&str; 6] = ["chardev", "config_size", "num_vqs", "page-per-vq", "virtio-id", "vq_size"];

const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Most bytes of a complaint that are shown.
const COMPLAINT_MAX: u64 = 4096;

/// A QEMU that can host the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// Program and leading arguments: a provisioned QEMU runs under its own dynamic loader.
    pub command: Vec<OsString>,
    /// The file that decides what it can do.
    pub binary: PathBuf,
    /// The version it reports.
    pub version: String,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a QEMU comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it.
    Given,
    /// It is the `qemu-system-x86_64` of this machine.
    Path,
    /// It was unpacked from Debian packages into the cache.
    Provisioned,
}

impl Origin {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Path => "found on PATH",
            Self::Provisioned => "provisioned from Debian packages",
        }
    }
}

impl Qemu {
    /// The QEMU to use: the given one, else a suitable one on `PATH`, else the provisioned one, which is
    /// downloaded if need be.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        if let Some(binary) = given {
            return Self::inspect(vec![binary.into()], binary.to_owned(), Origin::Given);
        }
        match Self::on_path() {
            Some(Ok(qemu)) => return Ok(qemu),
            Some(Err(error)) => log::debug!("not using the QEMU on PATH: {error}"),
            None => {}
        }
        let provisioned = provision::provide()?;
        Self::inspect(provisioned.command, provisioned.binary, Origin::Provisioned)
    }

    /// What is on `PATH`, suitable or not.
    pub fn on_path() -> Option<Result<Self>> {
        let binary = std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|dir| dir.join("qemu-system-x86_64"))
            .find(|path| path.is_file())?;
        Some(Self::inspect(vec![binary.clone().into()], binary, Origin::Path))
    }

    fn inspect(command: Vec<OsString>, binary: PathBuf, origin: Origin) -> Result<Self> {
        if !binary.is_file() {
            let hint = "name a qemu-system-x86_64 binary, or leave the choice to vianic";
            return Err(Error::Missing { what: "QEMU", path: binary, hint });
        }
        let (version, features) = ask(&command).map_err(|(error, said)| Error::NotQemu {
            program: binary.display().to_string(),
            message: if said.is_empty() { error.to_string() } else { format!("{error}; it said: {said}") },
        })?;
        let missing = features.missing();
        if !missing.is_empty() {
            let program = binary.display().to_string();
            return Err(Error::UnsuitableQemu { program, version, missing: missing.join(", ") });
        }
        Ok(Self { command, binary, version, origin })
    }

    /// A command that starts it.
    pub(crate) fn start(&self) -> Command {
        start(&self.command)
    }
}

fn start(words: &[OsString]) -> Command {
    let (program, arguments) = words.split_first().expect("a QEMU command has a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// What a binary says it has.
#[derive(Debug, Default, PartialEq)]
struct Features {
    properties: BTreeSet<String>,
    shared_memory: bool,
}

impl Features {
    fn missing(&self) -> Vec<String> {
        if self.properties.is_empty() {
            return vec![format!("device {DEVICE}")];
        }
        let mut missing: Vec<_> = PROPERTIES
            .iter()
            .filter(|p| !self.properties.contains(**p))
            .map(|p| format!("property {p} of device {DEVICE}"))
            .collect();
        if !self.shared_memory {
            missing.push("shared memory regions for vhost-user devices".to_owned());
        }
        missing
    }
}

/// Starts the binary without a machine and asks over QMP. A failure comes with what the binary complained of.
fn ask(command: &[OsString]) -> Result<(String, Features), (Error, String)> {
    let mut qemu = start(command);
    qemu.args(["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]);
    qemu.args(["-chardev", "stdio,id=qmp,signal=off", "-qmp", "chardev:qmp"]);
    qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Child::spawn("QEMU", qemu).map_err(|error| (error, String::new()))?;
    let complaint = child.stderr();
    converse(&mut child).map_err(|error| {
        if let Err(error) = child.kill() {
            log::warn!("{error}");
        }
        let mut said = Vec::new();
        if let Some(stderr) = complaint {
            // Whatever can be read is better than nothing.
            let _ = stderr.take(COMPLAINT_MAX).read_to_end(&mut said);
        }
        (error, String::from_utf8_lossy(&said).trim().to_owned())
    })
}

fn converse(child: &mut Child) -> Result<(String, Features)> {
    let (Some(stdin), Some(stdout)) = child.pipes() else {
        return Err(Error::QmpBroken("QEMU has no pipes".to_owned()));
    };
    let limit = Limit::new("QEMU to say what it can do", PROBE_LIMIT);
    let qmp = Qmp::connect(stdout, stdin, &limit)?;
    let features = Features {
        properties: match qmp.execute("device-list-properties", json!({ "typename": DEVICE })) {
            Ok(answer) => names(&answer),
            Err(Error::QmpRefused { .. }) => BTreeSet::new(),
            Err(error) => return Err(error),
        },
        shared_memory: {
            let answer = qmp.execute("qom-list-types", json!({ "implements": SHARED_MEMORY }))?;
            names(&answer).contains(SHARED_MEMORY)
        },
    };
    Ok((qmp.version(), features))
}

/// The `name` members of a list of objects.
fn names(answer: &Value) -> BTreeSet<String> {
    let items = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["name"].as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(names_: &[&str]) -> BTreeSet<String> {
        names(&json!(names_.iter().map(|n| json!({ "name": n, "type": "uint32" })).collect::<Vec<_>>()))
    }

    #[test]
    fn a_complete_device_is_accepted() {
        let features = Features { properties: properties(&PROPERTIES), shared_memory: true };
        assert_eq!(features.missing(), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Features::default().missing(), ["device vhost-user-test-device-pci"]);
        let old = Features { properties: properties(&PROPERTIES[..5]), shared_memory: false };
        assert_eq!(
            old.missing(),
            [
                "property vq_size of device vhost-user-test-device-pci",
                "shared memory regions for vhost-user devices"
            ]
        );
    }

    #[test]
    fn a_program_that_is_not_qemu_is_named_with_its_complaint() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu.sh");
        std::fs::write(&program, "echo 'libpixman-1.so.0: cannot open' >&2\nexit 127\n").unwrap();
        let error = Qemu::inspect(vec!["sh".into(), program.clone().into()], program, Origin::Given);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("qemu.sh does not answer as QEMU does"), "{error}");
        assert!(error.contains("libpixman-1.so.0"), "{error}");
    }

    #[test]
    fn answers_that_are_no_lists_have_no_names() {
        assert!(names(&Value::Null).is_empty());
        assert!(names(&json!([{ "type": "x" }])).is_empty());
    }
}
