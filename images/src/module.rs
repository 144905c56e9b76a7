//! Builds the kernel module for a guest kernel.
//!
//! Kbuild's own programs and the compiler come from Debian packages of the kernel's age and need the C
//! library of that age, so the build runs in a chroot of those packages.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use crate::{
    Progress,
    apt::Suite,
    cache::Cache,
    command,
    error::{At, Error, Result},
    kernel::{Flavour, Kernel},
    stamp::Stamp,
};

/// Folders in the guest driver's tree: the module, and the headers it includes.
const MODULE: &str = "kernel-agent";
const HEADERS: &str = "abi/include";

/// What Kbuild runs besides the compiler, which comes with the headers.
const TOOLS: [&str; 10] =
    ["bash", "binutils", "coreutils", "dash", "diffutils", "findutils", "grep", "make", "mawk", "sed"];

/// Warnings beyond the kernel's own. (Kbuild's W=1 needs a script that Debian's headers lack.)
const WARNINGS: &str = "-Werror -Wmissing-prototypes -Wmissing-declarations -Wold-style-definition \
                        -Wunused-but-set-variable -Wunused-const-variable";

const NEEDS_SHELL: &str = " (building the module needs sh, mount, unshare and chroot)";

/// What is run in a mount namespace of its own. Without one, there is no /proc in the chroot, which only
/// newer kernels' tools need.
const IN_NAMESPACE: &str =
    r#"mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@""#;
const IN_PLACE: &str =
    r#"{ [ -e "$0/dev/null" ] || mknod -m 666 "$0/dev/null" c 1 3; } && exec chroot "$0" "$@""#;

/// Builds `vianic.ko` for this kernel from the tree `guest_driver`, which has `kernel-agent` and
/// `abi/include`. It's built again only when a source or the kernel has changed.
///
/// # Errors
/// [`Error::Compiler`] if the module doesn't compile, or not without warnings; others if the tools can't be
/// had or run.
pub fn ensure(
    cache: &Cache,
    kernel: &Kernel,
    guest_driver: &Path,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    let mut stamp = Stamp::new().text("module 1").text(WARNINGS).text(&kernel.version);
    for folder in [MODULE, HEADERS] {
        stamp = stamp.text(folder).tree(&guest_driver.join(folder), is_source)?;
    }
    let name = format!("module-{}", kernel.flavour.name());
    let place = cache.artifact(&name, stamp, |folder| {
        let root = tools(cache, kernel, progress)?;
        progress(&format!("building the kernel module for Linux {}", kernel.version));
        // Always at the same place, as the compiler writes it into the module.
        let _lock = cache.lock(&format!("build-{}", kernel.version))?;
        let build = root.join("build");
        clear(&build)?;
        for source in [MODULE, HEADERS] {
            copy(&guest_driver.join(source), &build.join(source))?;
        }
        make(&root, kernel)?;
        let module = build.join(MODULE).join("vianic.ko");
        if !module.is_file() {
            return Err(Error::Missing { what: "vianic.ko".into(), place: guest_driver.join(MODULE) });
        }
        fs::copy(&module, folder.join("vianic.ko")).at(&module)?;
        clear(&build)
    })?;
    Ok(place.join("vianic.ko"))
}

/// The compiler, make and the kernel's headers, ready to chroot into.
fn tools(cache: &Cache, kernel: &Kernel, progress: Progress<'_>) -> Result<PathBuf> {
    let packages = TOOLS.iter().map(ToString::to_string).chain([format!("linux-headers-{}", kernel.version)]);
    let mut closure = kernel.flavour.closure(packages.collect());
    if kernel.flavour == Flavour::Debian12 {
        // Debian 13 still has this kernel's compiler, and all kernels are then built with the same tools.
        closure.suites.push(Suite::Trixie);
        closure.default_release = Suite::Trixie;
    }
    let root =
        closure.unpack(cache, &format!("build-{}", kernel.flavour.name()), progress).map_err(|error| {
            match error {
                // Debian keeps the headers of its newest kernel only.
                Error::Failed { output, .. } if output.contains("Unable to locate package linux-headers") => {
                    Error::Invalid(format!(
                        "the headers of Linux {} are no longer on the mirror: \
                     `vianic image refresh` (or emptying {}) fetches the current kernel",
                        kernel.version,
                        cache.root().display()
                    ))
                }
                other => other,
            }
        })?;
    for folder in ["build", "dev", "proc", "tmp"] {
        let path = root.join(folder);
        fs::create_dir_all(&path).at(path)?;
    }
    let awk = root.join("usr/bin/awk");
    if awk.symlink_metadata().is_err() {
        // Packages leave this choice to a script of theirs.
        symlink("mawk", &awk).at(awk)?;
    }
    Ok(root)
}

/// Runs Kbuild. Warnings are errors.
fn make(root: &Path, kernel: &Kernel) -> Result<()> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut command = enter()?;
    command.arg(root).args(["/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin", "LC_ALL=C.UTF-8", "make"]);
    command.args(["-C", &format!("/lib/modules/{}/build", kernel.version)]);
    command.arg(format!("M=/build/{MODULE}"));
    command.args([&format!("KCFLAGS={WARNINGS}"), &format!("-j{jobs}"), "modules"]);
    let output = command::output(&mut command, NEEDS_SHELL)?;
    let text = command::both(&output);
    // Kbuild's own checks only warn.
    if output.status.success() && !text.contains("WARNING:") {
        return Ok(());
    }
    Err(Error::Compiler { kernel: kernel.version.clone(), output: text })
}

/// A shell that will enter a chroot: its folder, then the program and its arguments, are still to be added.
fn enter() -> Result<Command> {
    let namespaces: &[&str] =
        if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--map-root-user", "--mount"] };
    let mut probe = Command::new("unshare");
    let probe = command::output(probe.args(namespaces).arg("true"), NEEDS_SHELL)?;
    if probe.status.success() {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", IN_NAMESPACE]);
        return Ok(command);
    }
    if rustix::process::geteuid().is_root() {
        // In a container that may not make namespaces.
        let mut command = Command::new("sh");
        command.args(["-c", IN_PLACE]);
        return Ok(command);
    }
    Err(Error::Invalid(format!(
        "the kernel module is built in a chroot, and this user may not make one ({}): \
         allow user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), or run as root",
        command::both(&probe)
    )))
}

/// Whether a file is a source, not something that a build by hand has left.
fn is_source(name: &str) -> bool {
    let products = [".o", ".ko", ".mod", ".mod.c", ".symvers", ".order", ".a"];
    !name.starts_with('.') && !products.iter().any(|product| name.ends_with(product))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).at(to)?;
    for entry in fs::read_dir(from).at(from)? {
        let entry = entry.at(from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if !is_source(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).at(source)?;
        }
    }
    Ok(())
}

fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        fs::remove_dir_all(&path).at(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_are_copied() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("sub")).unwrap();
        for name in ["Kbuild", "main.c", "main.o", ".main.o.cmd", "vianic.mod.c", "vianic.ko", "sub/a.h"] {
            fs::write(from.path().join(name), name).unwrap();
        }
        copy(from.path(), &to.path().join("copy")).unwrap();
        let mut names: Vec<_> = fs::read_dir(to.path().join("copy"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["Kbuild", "main.c", "sub"]);
        assert!(to.path().join("copy/sub/a.h").is_file());
        clear(to.path()).unwrap();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }
}
