//! What can go wrong while images are made.

use std::{io, path::PathBuf};

/// Why something could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No place for the cache is known.
    #[error("no place for the cache: set VIANIC_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// A file could not be read, written or made.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No Debian mirror is known.
    #[error(
        "no Debian mirror is known: the apt configuration of this machine names none; \
         set VIANIC_DEBIAN_MIRROR to the address of one"
    )]
    NoMirror,
    /// The keys that Debian signs its archive with are missing.
    #[error("{0} is missing: install the package debian-archive-keyring")]
    NoKeyring(PathBuf),
    /// A program could not be started.
    #[error("cannot run {program}: {source}{hint}")]
    Start {
        /// Which program.
        program: String,
        /// What the system said.
        source: io::Error,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// A program has failed.
    #[error("{program} failed ({status}):\n{output}")]
    Failed {
        /// Which program, with its arguments.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// The kernel module doesn't compile.
    #[error("the kernel module doesn't compile for Linux {kernel}:\n{output}")]
    Compiler {
        /// Version of the kernel.
        kernel: String,
        /// The compiler's messages.
        output: String,
    },
    /// A package doesn't hold what it should.
    #[error("{what} was not found in {place}", place = place.display())]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        place: PathBuf,
    },
    /// Something of the wrong kind was asked for.
    #[error("{0}")]
    Invalid(String),
}

/// The usual result.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds the name of the file to an I/O error.
pub(crate) trait At<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File { path: path.into(), source })
    }
}
