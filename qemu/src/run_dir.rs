//! The private directory of one run: sockets and logs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// `sun_path` has 108 bytes, one of which ends the string.
pub(crate) const SOCKET_PATH_MAX: usize = 107;

/// A directory that only this user can enter and that goes with its owner.
#[derive(Debug)]
pub struct RunDir {
    dir: tempfile::TempDir,
}

impl RunDir {
    /// Makes a new one in the system's directory for temporary files.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("vianic-")
            .tempdir()
            .map_err(Error::io(format!("make a directory in {}", std::env::temp_dir().display())))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a unix socket in it, checked against the length the system allows.
    pub fn socket(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Error::SocketPath { path });
        }
        Ok(path)
    }

    /// Copies the logs to a directory that outlives the run.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        let doing = || format!("copy the logs to {}", to.display());
        fs::create_dir_all(to).map_err(Error::io(doing()))?;
        for entry in fs::read_dir(self.path()).map_err(Error::io(doing()))? {
            let entry = entry.map_err(Error::io(doing()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::copy(entry.path(), to.join(entry.file_name())).map_err(Error::io(doing()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_socket_paths_are_refused_with_advice() {
        let dir = RunDir::new().unwrap();
        assert!(dir.socket("qmp.sock").is_ok());
        let error = dir.socket(&"x".repeat(SOCKET_PATH_MAX)).unwrap_err().to_string();
        assert!(error.contains("set TMPDIR"), "{error}");
    }

    #[test]
    fn logs_are_kept_and_the_rest_is_removed() {
        let dir = RunDir::new().unwrap();
        let kept = tempfile::tempdir().unwrap();
        fs::write(dir.file("vm1.serial.log"), "booted").unwrap();
        dir.keep_logs(&kept.path().join("logs")).unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(kept.path().join("logs/vm1.serial.log")).unwrap(), "booted");
    }
}
