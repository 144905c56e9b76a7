//! The few modules of a kernel that its guests need.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use lzma_rust2::XzReader;

use crate::{
    apt,
    cache::Cache,
    error::{At, Error, Result},
    guest::GuestFile,
    kernel::Flavour,
};

/// What the agent's port needs where it isn't built in, in the order of loading. Loaded at boot.
const PORT: [&str; 6] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
];

/// For guests with what QEMU can give them besides, each in the order of loading: an ordinary network card (`modprobe virtio_net`),
/// a disk, a balloon. Loaded on demand.
const CHAINS: [&[&str]; 3] =
    [&["failover", "net_failover", "virtio_net"], &["virtio_blk"], &["virtio_balloon"]];

/// Lists the modules that the agent loads at boot.
const LIST: &str = "boot";

fn port(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Debian12 => &PORT,
        Flavour::Debian13 | Flavour::Debian13Backports => &[],
    }
}

/// Takes the modules out of the kernel's package: `folder` becomes a guest's /lib/modules.
pub(crate) fn take(
    cache: &Cache,
    package: &Path,
    flavour: Flavour,
    version: &str,
    folder: &Path,
) -> Result<()> {
    let names = port(flavour).iter().chain(CHAINS.into_iter().flatten()).copied().collect::<Vec<_>>();
    let patterns = names.iter().map(|name| format!("*/{name}.ko*")).collect::<Vec<_>>();
    let tree = cache.scratch()?;
    apt::unpack(package, tree.path(), &patterns.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut found = Vec::new();
    list(tree.path(), &mut found)?;

    let place = folder.join(version);
    fs::create_dir_all(&place).at(&place)?;
    for name in &names {
        let named = |path: &&PathBuf| {
            path.file_stem().is_some_and(|stem| Path::new(stem).with_extension("") == Path::new(name))
        };
        let module = found.iter().find(named).ok_or_else(|| Error::Missing {
            what: format!("the module {name}"),
            place: package.to_path_buf(),
        })?;
        unpack(module, &place.join(format!("{name}.ko")))?;
    }
    let dependencies: String = [port(flavour)].into_iter().chain(CHAINS).map(dependencies).collect();
    let boot = port(flavour).iter().map(|name| format!("/lib/modules/{version}/{name}.ko\n")).collect();
    for (path, content) in [(place.join("modules.dep"), dependencies), (folder.join(LIST), boot)] {
        fs::write(&path, content).at(path)?;
    }
    Ok(())
}

/// What `take` has laid into this folder, as files of a guest.
pub(crate) fn guest_files(folder: &Path) -> Result<Vec<GuestFile>> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.sort();
    let guest = |host: &Path| host.strip_prefix(folder).map(|inside| Path::new("/lib/modules").join(inside));
    Ok(files
        .into_iter()
        .filter_map(|host| Some(GuestFile { guest: guest(&host).ok()?, host, mode: 0o644, aliases: vec![] }))
        .collect())
}

/// Lines of modules.dep: each module of a chain needs those before it, the nearest first.
fn dependencies(chain: &[&str]) -> String {
    let line = |(index, name): (usize, &&str)| {
        let before = chain[..index].iter().rev().map(|name| format!(" {name}.ko")).collect::<String>();
        format!("{name}.ko:{before}\n")
    };
    chain.iter().enumerate().map(line).collect()
}

/// Not every guest's `insmod` can unpack modules.
fn unpack(module: &Path, to: &Path) -> Result<()> {
    if module.extension().is_some_and(|extension| extension == "xz") {
        let mut reader = XzReader::new(File::open(module).at(module)?, false);
        let mut out = File::create(to).at(to)?;
        io::copy(&mut reader, &mut out).at(module)?;
    } else {
        fs::copy(module, to).at(module)?;
    }
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_loaded_from_its_end() {
        assert_eq!(dependencies(&["a", "b", "c"]), "a.ko:\nb.ko: a.ko\nc.ko: b.ko a.ko\n");
    }

    #[test]
    fn modules_have_their_place_in_a_guest() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("6.1")).unwrap();
        fs::write(folder.path().join("6.1/x.ko"), "").unwrap();
        fs::write(folder.path().join(LIST), "").unwrap();
        let files = guest_files(folder.path()).unwrap();
        let places: Vec<_> = files.iter().map(|file| file.guest.to_str().unwrap()).collect();
        assert_eq!(places, ["/lib/modules/6.1/x.ko", "/lib/modules/boot"]);
    }
}
