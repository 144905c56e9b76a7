//! Guest kernels: Debian's own, unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Progress,
    apt::{self, Archive, Closure, Suite},
    cache::Cache,
    error::{At, Error, Result},
    kernel_modules,
    stamp::Stamp,
    vmlinux,
};

/// The meta package that depends on the current kernel for virtual machines.
const META: &str = "linux-image-cloud-amd64";

/// How the package of an image begins that comes without modules.
const SPLIT: &str = "linux-binary-";

/// Folder of a kernel's modules in the cache.
const MODULES: &str = "modules";

/// How the name of a kernel in the cache begins; its version follows.
const IMAGE: &str = "linux-";

/// Which Debian a kernel is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Linux 6.1.
    Debian12,
    /// Linux 6.12.
    Debian13,
    /// The newest that Debian 13 has.
    Debian13Backports,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Debian12, Self::Debian13, Self::Debian13Backports];

    /// A short name, as used in file names and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "debian12",
            Self::Debian13 => "debian13",
            Self::Debian13Backports => "debian13-backports",
        }
    }

    /// Where packages of this kernel come from.
    pub(crate) fn closure(self, packages: Vec<String>) -> Closure {
        let (suites, default_release) = match self {
            Self::Debian12 => (vec![Suite::Bookworm], Suite::Bookworm),
            Self::Debian13 => (vec![Suite::Trixie], Suite::Trixie),
            Self::Debian13Backports => (vec![Suite::Trixie, Suite::TrixieBackports], Suite::TrixieBackports),
        };
        Closure { suites, default_release, packages }
    }
}

/// A kernel that guests boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Whose it is.
    pub flavour: Flavour,
    /// Its version, as `uname -r` tells it.
    pub version: String,
    /// What QEMU's `-kernel` takes: unpacked if QEMU can start it so.
    pub image: PathBuf,
    /// The folder that becomes a guest's /lib/modules.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The kernel of this flavour: the one in the cache, else the newest on the mirror.
    ///
    /// # Errors
    /// If it can't be had.
    pub fn ensure(cache: &Cache, flavour: Flavour, progress: Progress<'_>) -> Result<Self> {
        let name = format!("kernel-{}", flavour.name());
        let place = cache.artifact(&name, Stamp::new().text("kernel 5"), |folder| {
            let archive = Archive::open(cache, &flavour.closure(vec![META.into()]))?;
            let download = cache.scratch()?;
            // Newer kernels are split: the image itself is a package of its own.
            let prefixes = [SPLIT, "linux-image-"];
            let package = archive.download_one(META, &prefixes, download.path(), progress)?;
            // Beside its modules or in /boot, depending on its age.
            let tree = cache.scratch()?;
            apt::unpack(&package, tree.path(), &["*/vmlinuz*"])?;
            let (version, image) = find(tree.path())?;
            let packed = fs::read(&image).at(&image)?;
            let place = folder.join(format!("{IMAGE}{version}"));
            fs::write(&place, vmlinux::unpack(&packed).unwrap_or(packed)).at(place)?;
            let split = package.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SPLIT));
            let package = if split {
                archive.download_one(META, &["linux-modules-"], download.path(), progress)?
            } else {
                package
            };
            kernel_modules::take(cache, &package, flavour, &version, &folder.join(MODULES))
        })?;
        let (version, image) = image_in(&place, IMAGE)?;
        Ok(Self { flavour, version, image, modules: place.join(MODULES) })
    }
}

/// The kernel in an unpacked package: /boot/vmlinuz-VERSION or /usr/lib/modules/VERSION/vmlinuz.
fn find(tree: &Path) -> Result<(String, PathBuf)> {
    let boot = tree.join("boot");
    if boot.is_dir() {
        return image_in(&boot, "vmlinuz-");
    }
    let modules = tree.join("usr/lib/modules");
    for entry in fs::read_dir(&modules).at(&modules)? {
        let entry = entry.at(&modules)?;
        let image = entry.path().join("vmlinuz");
        if image.is_file() {
            return Ok((entry.file_name().to_string_lossy().into_owned(), image));
        }
    }
    Err(Error::Missing { what: "a kernel".into(), place: modules })
}

/// The kernel in a folder: its version follows the prefix.
fn image_in(folder: &Path, prefix: &str) -> Result<(String, PathBuf)> {
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        if let Some(version) = entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix)) {
            return Ok((version.to_string(), entry.path()));
        }
    }
    Err(Error::Missing { what: "a kernel".into(), place: folder.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_known() {
        for path in ["boot/vmlinuz-6.1-x", "usr/lib/modules/6.1-x/vmlinuz"] {
            let tree = tempfile::tempdir().unwrap();
            let image = tree.path().join(path);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            assert_eq!(find(tree.path()).unwrap(), ("6.1-x".into(), image));
        }
        assert!(find(tempfile::tempdir().unwrap().path()).is_err());
    }
}
