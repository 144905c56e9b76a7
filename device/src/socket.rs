//! Listening sockets in the file system: made where nobody else listens, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a socket cannot be made at a path.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path does not fit a socket address.
    #[error(
        "{path}: the path has {length} bytes; a socket's path may have at most 107. Use a shorter directory or a \
         relative path"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        length: usize,
    },
    /// Somebody listens there.
    #[error("{0}: another process listens on this socket. Stop it, or choose another path")]
    InUse(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{0}: exists and is not a socket. Choose another path, or remove it")]
    NotASocket(PathBuf),
    /// The directory does not exist.
    #[error("{0}: the directory of this socket does not exist. Create it first")]
    NoDirectory(PathBuf),
    /// Anything else.
    #[error("{path}: cannot listen on this socket: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A path at which this process listens. Dropping it removes the socket file, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Listens at `path`. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let io_error = |source| SocketError::Io { path: path.to_owned(), source };
        let address = SocketAddr::from_pathname(path)
            .map_err(|_| SocketError::TooLong { path: path.to_owned(), length: path.as_os_str().len() })?;
        if let Some(directory) = path.parent()
            && !directory.as_os_str().is_empty()
            && !directory.is_dir()
        {
            return Err(SocketError::NoDirectory(path.to_owned()));
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect_addr(&address) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(io_error)?;
                }
                _ => return Err(SocketError::InUse(path.to_owned())),
            },
        }
        let listener = UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse(path.to_owned()),
            _ => io_error(error),
        })?;
        let made = fs::symlink_metadata(path).map_err(io_error)?;
        Ok((Self { path: path.to_owned(), device: made.dev(), inode: made.ino() }, listener))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).as_ref().is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("{}: cannot remove the socket file: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    #[test]
    fn a_stale_socket_is_replaced_and_ours_is_removed() {
        let directory = directory();
        let path = directory.path().join("nic.sock");
        drop(UnixListener::bind(&path).expect("stale socket"));
        assert!(path.exists());
        let (file, listener) = SocketFile::bind(&path).expect("replaces a stale socket");
        UnixStream::connect(&path).expect("connects");
        drop(listener);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("nic.sock");
        let _listener = UnixListener::bind(&path).expect("live socket");
        assert!(matches!(SocketFile::bind(&path), Err(SocketError::InUse(_))));
        UnixStream::connect(&path).expect("still there");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("file");
        fs::write(&path, "precious").expect("write");
        assert!(matches!(SocketFile::bind(&path), Err(SocketError::NotASocket(_))));
        assert!(matches!(SocketFile::bind(directory.path()), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
    }

    #[test]
    fn a_path_that_cannot_be_is_explained() {
        let directory = directory();
        let long = directory.path().join("n".repeat(108));
        assert!(matches!(SocketFile::bind(&long), Err(SocketError::TooLong { .. })));
        let nowhere = directory.path().join("no/such/nic.sock");
        assert!(matches!(SocketFile::bind(&nowhere), Err(SocketError::NoDirectory(_))));
    }

    #[test]
    fn a_socket_that_took_our_place_is_not_removed() {
        let directory = directory();
        let path = directory.path().join("nic.sock");
        let (file, _listener) = SocketFile::bind(&path).expect("bind");
        // Renamed, not removed: a removed socket's inode number may be given to the next one.
        fs::rename(&path, directory.path().join("old.sock")).expect("move");
        let _other = UnixListener::bind(&path).expect("bind");
        drop(file);
        assert!(path.exists());
    }
}
