//! What the init of a guest does before it serves.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::Path,
};

use anyhow::Context;
use rustix::{
    fs::Mode,
    io::Errno,
    mount::{MountFlags, mount},
    system::{finit_module, sethostname, uname},
};
use vianic_guest_agent::ModuleState;

use crate::sys;

/// The kernel module of this project.
const MODULE: &str = "/lib/modules/vianic.ko";

/// Lists modules of the kernel to load first.
const BOOT_MODULES: &str = "/lib/modules/boot";

/// A folder for each CPU.
const CPUS: &str = "/sys/devices/system/cpu";

/// Type, place, flags beyond the usual, options.
const MOUNTS: [(&str, &str, MountFlags, &str); 7] = [
    ("proc", "/proc", MountFlags::NOEXEC, ""),
    ("sysfs", "/sys", MountFlags::NOEXEC, ""),
    ("devtmpfs", "/dev", MountFlags::NOEXEC, "mode=755"),
    ("devpts", "/dev/pts", MountFlags::NOEXEC, "mode=620,ptmxmode=666,gid=5"),
    ("tmpfs", "/dev/shm", MountFlags::NODEV, "mode=1777"),
    ("tmpfs", "/run", MountFlags::NODEV, "mode=755"),
    ("tmpfs", "/tmp", MountFlags::NODEV, "mode=1777"),
];

/// Makes the system ready for commands.
pub(crate) fn prepare() -> anyhow::Result<ModuleState> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (kind, place, flags, options) in MOUNTS {
        mount_at(kind, place, flags, options).with_context(|| format!("mounting {place}"))?;
    }
    for (link, target) in
        [("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2")]
    {
        link_in_dev(link, target).with_context(|| format!("linking /dev/{link}"))?;
    }
    // Neither keeps anybody from working.
    if let Err(error) = sys::loopback_up() {
        eprintln!("vianic-guest-agent: setting up lo: {error}");
    }
    // Unless the kernel was told one.
    if uname().nodename() == c"(none)"
        && let Err(error) = sethostname(b"vianic")
    {
        eprintln!("vianic-guest-agent: setting the host name: {error}");
    }
    if let Err(error) = online_cpus() {
        eprintln!("vianic-guest-agent: bringing up the CPUs: {error}");
    }
    for path in fs::read_to_string(BOOT_MODULES).unwrap_or_default().lines() {
        if let ModuleState::Failed(why) = load(path, "") {
            eprintln!("vianic-guest-agent: {why}");
        }
    }
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let module = load(MODULE, &parameters(&command_line));
    if let ModuleState::Failed(why) = &module {
        eprintln!("vianic-guest-agent: {why}");
    }
    Ok(module)
}

fn mount_at(kind: &str, place: &str, flags: MountFlags, options: &str) -> anyhow::Result<()> {
    fs::create_dir_all(place)?;
    let options = CString::new(options)?;
    match mount(kind, place, kind, MountFlags::NOSUID | flags, options.as_c_str()) {
        // The kernel was told to mount it itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn link_in_dev(link: &str, target: &str) -> io::Result<()> {
    match symlink(Path::new("/proc").join(target), Path::new("/dev").join(link)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Brings up the CPUs that the kernel has left alone (`maxcpus=1`).
fn online_cpus() -> io::Result<()> {
    for entry in fs::read_dir(CPUS)? {
        let switch = entry?.path().join("online");
        // The first CPU has none.
        if fs::read_to_string(&switch).is_ok_and(|state| state.trim() == "0") {
            fs::write(&switch, "1")?;
        }
    }
    Ok(())
}

fn load(path: &str, parameters: &str) -> ModuleState {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return ModuleState::Absent,
        Err(error) => return ModuleState::Failed(format!("opening {path}: {error}")),
        Ok(file) => file,
    };
    let Ok(arguments) = CString::new(parameters) else {
        return ModuleState::Failed("a zero byte in the kernel command line".into());
    };
    match finit_module(&file, &arguments, 0) {
        Ok(()) => ModuleState::Loaded,
        Err(error) => ModuleState::Failed(format!(
            "loading {path} with parameters \"{parameters}\": {error}; the kernel's log (dmesg) may say why"
        )),
    }
}

/// The module's parameters in the kernel's command line: every `vianic.name=value`, as modprobe would pass them.
fn parameters(command_line: &str) -> String {
    let mut quoted = false;
    let words = command_line.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    words.filter_map(|word| word.strip_prefix("vianic.")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::parameters;

    #[test]
    fn module_parameters_are_found() {
        assert_eq!(parameters("console=ttyS0 quiet\n"), "");
        assert_eq!(
            parameters("vianic.debug=1 quiet vianic.name=\"a b\" x.vianic.y=2\n"),
            "debug=1 name=\"a b\""
        );
    }
}
