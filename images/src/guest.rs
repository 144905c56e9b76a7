//! The guest image: a kernel, and an initramfs that is the whole system.
//!
//! The initramfs has two parts, one after the other. The base (Debian packages) hardly ever changes; over it
//! lies what this project builds: the agent as init, the kernel module, tools and libraries.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Progress,
    apt::{Closure, Suite},
    cache::Cache,
    command,
    error::{At, Error, Result},
    initramfs::Tree,
    kernel::Kernel,
    kernel_modules,
    stamp::Stamp,
};

/// Packages of every guest: a shell and small tools, what dynamic programs need, strace.
const PACKAGES: [&str; 4] = ["busybox-static", "libc6", "libgcc-s1", "strace"];

/// Folders of packages that guests have no use for.
const UNWANTED: [&str; 6] = [
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/audit",
    "usr/share",
    "var",
    "etc",
    "usr/include",
];

/// Folders that the agent mounts something on, or that programs expect.
const FOLDERS: [(&str, u32); 12] = [
    ("/dev", 0o755),
    ("/etc/vianic", 0o755),
    ("/home/user", 0o777),
    ("/mnt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr/share", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

const TEXTS: [(&str, &str); 6] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         user:x:1000:1000:user:/home/user:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost vianic\n::1\tlocalhost\n"),
    ("/etc/hostname", "vianic\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("/etc/shells", "/bin/sh\n"),
];

/// What the kernel is told: little on the slow serial console, a stop instead of limping on, and no defences and
/// self-tests that only cost time in an emulated machine.
///
/// It boots on one CPU; the guest agent brings up the others. While it boots, Linux patches its own code (static
/// keys), and QEMU's TCG with a thread per CPU now and then lets another CPU run the breakpoint of a patch that is
/// already finished: "Oops: int3".
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic \
    mitigations=off cryptomgr.notests no_timer_check maxcpus=1";

/// A file of the host that a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it will be in the guest.
    pub guest: PathBuf,
    /// Its permissions there.
    pub mode: u32,
    /// Other names that it has in the same folder, as links.
    pub aliases: Vec<String>,
}

/// What a guest consists of.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its kernel.
    pub kernel: Kernel,
    /// The guest agent, its init.
    pub agent: PathBuf,
    /// The kernel module, loaded at boot.
    pub module: Option<PathBuf>,
    /// More files.
    pub files: Vec<GuestFile>,
    /// More packages of Debian 13. Only their files: no script of theirs runs.
    pub packages: Vec<String>,
}

/// What QEMU needs to boot a guest.
#[derive(Clone, Debug)]
pub struct GuestImage {
    /// For `-kernel`.
    pub kernel: PathBuf,
    /// For `-initrd`.
    pub initrd: PathBuf,
    /// Version of the kernel.
    pub kernel_version: String,
    /// For `-append`. Parameters of the kernel module may be added as `vianic.name=value`.
    pub cmdline: String,
}

impl GuestImage {
    /// Makes the image, or finds it in the cache.
    ///
    /// # Errors
    /// If a file can't be read, packages can't be had, or the cache can't be written.
    pub fn ensure(cache: &Cache, spec: &GuestSpec, progress: Progress<'_>) -> Result<Self> {
        let overlay = spec.overlay()?;
        let mut stamp = Stamp::new().text("initrd 1");
        for package in &spec.packages {
            stamp = stamp.text(package);
        }
        let base = base(cache, &spec.packages, progress)?;
        stamp = stamp.text(&base.to_string_lossy());
        for file in &overlay {
            stamp =
                stamp.text(&file.guest.to_string_lossy()).text(&file.mode.to_string()).file(&file.host)?;
            for alias in &file.aliases {
                stamp = stamp.text(alias);
            }
        }
        let place = cache.artifact("initrd", stamp, |folder| {
            let path = folder.join("initrd.cpio");
            let mut out = BufWriter::new(File::create(&path).at(&path)?);
            let mut below = File::open(&base).at(&base)?;
            io::copy(&mut below, &mut out).at(&path)?;
            let mut tree = Tree::new();
            for file in &overlay {
                tree.file(&file.guest, &file.host, file.mode)?;
                for alias in &file.aliases {
                    let name = file.guest.file_name().unwrap_or_default();
                    tree.link(&file.guest.with_file_name(alias).to_string_lossy(), name)?;
                }
            }
            tree.write(&mut out)?;
            out.flush().at(&path)
        })?;
        Ok(Self {
            kernel: spec.kernel.image.clone(),
            initrd: place.join("initrd.cpio"),
            kernel_version: spec.kernel.version.clone(),
            cmdline: COMMAND_LINE.to_string(),
        })
    }
}

impl GuestSpec {
    fn overlay(&self) -> Result<Vec<GuestFile>> {
        let file = |host: &Path, guest: &str, mode| GuestFile {
            host: host.into(),
            guest: guest.into(),
            mode,
            aliases: vec![],
        };
        let mut files = vec![file(&self.agent, "/init", 0o755)];
        files.extend(kernel_modules::guest_files(&self.kernel.modules)?);
        files.extend(self.module.iter().map(|module| file(module, "/lib/modules/vianic.ko", 0o644)));
        files.extend(self.files.iter().cloned());
        Ok(files)
    }
}

/// The base: packages, busybox as everything they lack, and a few files of /etc.
fn base(cache: &Cache, more: &[String], progress: Progress<'_>) -> Result<PathBuf> {
    let packages = PACKAGES.iter().map(ToString::to_string).chain(more.iter().cloned()).collect::<Vec<_>>();
    let stamp = packages.iter().fold(Stamp::new().text("base 2"), |stamp, package| stamp.text(package));
    let place = cache.artifact("base", stamp, |folder| {
        let closure = Closure {
            suites: vec![Suite::Trixie],
            default_release: Suite::Trixie,
            packages: packages.clone(),
        };
        let root = closure.unpack(cache, "guest", progress)?;
        // What somebody asked for is wanted with its data.
        let unwanted: &[&str] = if more.is_empty() { &UNWANTED } else { &UNWANTED[..2] };
        let mut tree = Tree::new();
        tree.usrmerge();
        tree.host_tree(&root, &|path| unwanted.iter().any(|unwanted| path == Path::new(unwanted)))?;
        for (path, mode) in FOLDERS {
            tree.folder(path, mode)?;
        }
        for (path, text) in TEXTS {
            tree.text(path, text)?;
        }
        add_busybox(&mut tree, &root)?;
        let path = folder.join("base.cpio");
        let mut out = BufWriter::new(File::create(&path).at(&path)?);
        tree.write(&mut out)?;
        out.flush().at(&path)
    })?;
    Ok(place.join("base.cpio"))
}

/// Links every program that busybox can be and no package brings.
fn add_busybox(tree: &mut Tree, root: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    if fs::metadata(&busybox).is_err() {
        return Err(Error::Missing { what: "usr/bin/busybox".into(), place: root.to_path_buf() });
    }
    // It's static: it runs on any host.
    let list = command::run(Command::new(&busybox).arg("--list-full"), "")?;
    for applet in list.lines().map(|path| Path::new("/").join(path)) {
        let Some(path) = applet.to_str() else { continue };
        // This would stand in the way of the agent.
        if !tree.contains(path) && path != "/init" {
            tree.link(path, "/usr/bin/busybox")?;
        }
    }
    Ok(())
}
