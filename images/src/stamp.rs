//! Stamps: one number for everything a thing is made from.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::error::{At, Result};

/// Collects inputs. The same inputs in the same order give the same stamp.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    hash: Sha256,
}

impl Stamp {
    /// No inputs yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.bytes(text.as_bytes());
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let mut file = File::open(path).at(path)?;
        let mut content = Sha256::new();
        io::copy(&mut file, &mut content).at(path)?;
        self.bytes(&content.finalize());
        Ok(self)
    }

    /// Adds the regular files under a folder whose names (and whose folders' names) are `wanted`: names,
    /// contents, and whether they can be executed.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn tree(mut self, folder: &Path, wanted: fn(&str) -> bool) -> Result<Self> {
        let mut entries = fs::read_dir(folder).at(folder)?.collect::<io::Result<Vec<_>>>().at(folder)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if !wanted(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let kind = fs::metadata(&path).at(&path)?;
            self.bytes(entry.file_name().as_encoded_bytes());
            if kind.is_dir() {
                self = self.text("folder").tree(&path, wanted)?.text("end");
            } else if kind.is_file() {
                let executable = kind.permissions().mode() & 0o111 != 0;
                self = self.text(if executable { "program" } else { "file" }).file(&path)?;
            }
        }
        Ok(self)
    }

    /// The stamp.
    #[must_use]
    pub fn finish(self) -> String {
        self.hash.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // With its length, so that no two lists of inputs look the same.
        self.hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.hash.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_told_apart() {
        let stamp = |words: &[&str]| words.iter().fold(Stamp::new(), |stamp, word| stamp.text(word)).finish();
        assert_eq!(stamp(&["a", "b"]), stamp(&["a", "b"]));
        assert_ne!(stamp(&["a", "b"]), stamp(&["b", "a"]));
        assert_ne!(stamp(&["ab"]), stamp(&["a", "b"]));
    }

    #[test]
    fn a_tree_is_known_by_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = || Stamp::new().tree(folder.path(), |name| name != "ignored").unwrap().finish();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/file"), "one").unwrap();
        let first = stamp();
        fs::write(folder.path().join("sub/ignored"), "one").unwrap();
        assert_eq!(first, stamp());
        fs::write(folder.path().join("sub/file"), "two").unwrap();
        let second = stamp();
        assert_ne!(first, second);
        fs::rename(folder.path().join("sub/file"), folder.path().join("file")).unwrap();
        assert_ne!(second, stamp());
    }
}
