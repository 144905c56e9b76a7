//! Writes file trees as the archives (newc cpio) that a kernel unpacks at boot.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use cpio::newc::{self, ModeFileType};

use crate::error::{At, Error, Result};

/// Top-level folders that are links into /usr.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// A file tree, by path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

#[derive(Debug)]
enum Node {
    Folder { mode: u32 },
    File { host: PathBuf, mode: u32 },
    Text { content: String, mode: u32 },
    Link { target: PathBuf },
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        place(Path::new(path)).is_ok_and(|path| self.nodes.contains_key(&path))
    }

    /// Adds a folder.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.insert(Path::new(path), Node::Folder { mode })
    }

    /// Adds a file of the host.
    pub(crate) fn file(&mut self, path: &Path, host: &Path, mode: u32) -> Result<()> {
        self.insert(path, Node::File { host: host.to_path_buf(), mode })
    }

    /// Adds a small file.
    pub(crate) fn text(&mut self, path: &str, content: &str) -> Result<()> {
        self.insert(Path::new(path), Node::Text { content: content.to_string(), mode: 0o644 })
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: impl Into<PathBuf>) -> Result<()> {
        self.insert(Path::new(path), Node::Link { target: target.into() })
    }

    /// The root itself, and the links of a merged /usr.
    pub(crate) fn usrmerge(&mut self) {
        self.nodes.insert(".".into(), Node::Folder { mode: 0o755 });
        for name in MERGED {
            self.nodes.insert(name.into(), Node::Link { target: Path::new("usr").join(name) });
            self.nodes.insert(Path::new("usr").join(name), Node::Folder { mode: 0o755 });
        }
        self.nodes.insert("usr".into(), Node::Folder { mode: 0o755 });
    }

    /// Adds a tree of the host, but nothing whose path in it is `unwanted`.
    pub(crate) fn host_tree(&mut self, root: &Path, unwanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        self.host_folder(root, Path::new(""), unwanted)
    }

    fn host_folder(&mut self, root: &Path, inside: &Path, unwanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        let folder = root.join(inside);
        for entry in fs::read_dir(&folder).at(&folder)? {
            let entry = entry.at(&folder)?;
            let (host, path) = (entry.path(), inside.join(entry.file_name()));
            if unwanted(&path) {
                continue;
            }
            let data = fs::symlink_metadata(&host).at(&host)?;
            let mode = data.permissions().mode() & 0o7777;
            if data.is_symlink() {
                // The merged folders are there already, and the same.
                if !MERGED.iter().any(|merged| path == Path::new(merged)) {
                    self.insert(&path, Node::Link { target: fs::read_link(&host).at(&host)? })?;
                }
            } else if data.is_dir() {
                self.insert(&path, Node::Folder { mode })?;
                self.host_folder(root, &path, unwanted)?;
            } else if data.is_file() {
                self.insert(&path, Node::File { host, mode })?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &Path, node: Node) -> Result<()> {
        let path = place(path)?;
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.nodes.entry(parent.to_path_buf()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Writes the archive. Several can follow each other in one file, and what comes later wins.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        for (path, node) in &self.nodes {
            let name =
                path.to_str().ok_or_else(|| Error::Invalid(format!("{} is not UTF-8", path.display())))?;
            let entry = newc::Builder::new(name).nlink(1);
            match node {
                Node::Folder { mode } => {
                    let entry = entry.mode(*mode).set_mode_file_type(ModeFileType::Directory);
                    write_bytes(entry.nlink(2), b"", out)
                }
                Node::Text { content, mode } => {
                    let entry = entry.mode(*mode).set_mode_file_type(ModeFileType::Regular);
                    write_bytes(entry, content.as_bytes(), out)
                }
                Node::Link { target } => {
                    let entry = entry.mode(0o777).set_mode_file_type(ModeFileType::Symlink);
                    write_bytes(entry, target.as_os_str().as_encoded_bytes(), out)
                }
                Node::File { host, mode } => {
                    let entry = entry.mode(*mode).set_mode_file_type(ModeFileType::Regular);
                    write_file(entry, host, out)
                }
            }
            .at(path)?;
        }
        newc::trailer(out).at("the end of the archive")?;
        Ok(())
    }
}

fn write_bytes(entry: newc::Builder, content: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut writer = entry.write(out, size(content.len())?);
    writer.write_all(content)?;
    writer.finish().map(drop)
}

fn write_file(entry: newc::Builder, host: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(host)?;
    let length = file.metadata()?.len();
    let mut writer = entry.write(out, size(length)?);
    if io::copy(&mut file, &mut writer)? != length {
        return Err(io::Error::other("changed while it was read"));
    }
    writer.finish().map(drop)
}

fn size(length: impl TryInto<u32>) -> io::Result<u32> {
    length.try_into().map_err(|_| io::Error::other("too large for an initramfs: 4 GiB is the limit"))
}

/// A guest's path as the archive has it: relative, and not through a link, which unpacking would replace.
fn place(path: &Path) -> Result<PathBuf> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Invalid(format!("{}: a path in a guest has no `..`", path.display())));
            }
        }
    }
    let first = parts.first().and_then(|first| first.to_str());
    let merged = parts.len() > 1 && first.is_some_and(|first| MERGED.contains(&first));
    let path: PathBuf = parts.iter().collect();
    Ok(if merged { Path::new("usr").join(path) } else { path })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Name, mode, content.
    fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(archive).unwrap();
            let (name, mode) = (reader.entry().name().to_string(), reader.entry().mode());
            if reader.entry().is_trailer() {
                return entries;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            archive = reader.finish().unwrap();
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn an_archive_has_what_was_added() {
        let host = tempfile::NamedTempFile::new().unwrap();
        fs::write(host.path(), "program").unwrap();
        let mut tree = Tree::new();
        tree.usrmerge();
        tree.file(Path::new("/lib/modules/x.ko"), host.path(), 0o644).unwrap();
        tree.text("/etc/hosts", "127.0.0.1 localhost\n").unwrap();
        tree.link("/usr/bin/sh", "busybox").unwrap();
        tree.folder("/tmp", 0o1777).unwrap();
        assert!(tree.contains("/bin/sh"));
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let entries = read(&archive);
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                ".",
                "bin",
                "etc",
                "etc/hosts",
                "lib",
                "lib64",
                "sbin",
                "tmp",
                "usr",
                "usr/bin",
                "usr/bin/sh",
                "usr/lib",
                "usr/lib/modules",
                "usr/lib/modules/x.ko",
                "usr/lib64",
                "usr/sbin",
            ]
        );
        let entry = |name: &str| {
            let (_, mode, content) = entries.iter().find(|(other, ..)| other == name).unwrap();
            (*mode, std::str::from_utf8(content).unwrap())
        };
        assert_eq!(entry("bin"), (0o120_777, "usr/bin"));
        assert_eq!(entry("tmp"), (0o041_777, ""));
        assert_eq!(entry("usr/bin/sh"), (0o120_777, "busybox"));
        assert_eq!(entry("usr/lib/modules/x.ko"), (0o100_644, "program"));
    }

    #[test]
    fn host_trees_are_taken_without_the_unwanted() {
        let host = tempfile::tempdir().unwrap();
        crate::apt::make_usrmerge(host.path()).unwrap();
        fs::write(host.path().join("lib/wanted"), "").unwrap();
        fs::create_dir(host.path().join("usr/share")).unwrap();
        let mut tree = Tree::new();
        tree.usrmerge();
        tree.host_tree(host.path(), &|path| path == Path::new("usr/share")).unwrap();
        assert!(tree.contains("/lib/wanted"));
        assert!(!tree.contains("/usr/share"));
        assert!(matches!(tree.nodes[Path::new("lib")], Node::Link { .. }));
    }

    #[test]
    fn no_path_leads_out() {
        assert!(place(Path::new("/usr/../../etc")).is_err());
        assert_eq!(place(Path::new("//bin/./x")).unwrap(), Path::new("usr/bin/x"));
        assert_eq!(place(Path::new("/library/x")).unwrap(), Path::new("library/x"));
    }
}
