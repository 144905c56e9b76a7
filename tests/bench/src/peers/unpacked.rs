//! Programs of Debian's packages, unpacked into the cache and run from there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use vianic_images::Progress;
use vianic_images::apt::{Closure, Suite};
use vianic_images::cache::Cache;

/// A package of Debian 12 and all that it needs.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    root: PathBuf,
}

impl Unpacked {
    /// Unpacks a package as the artifact `name`, unless it is there.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) fn provide(package: &str, name: &str, progress: Progress<'_>) -> anyhow::Result<Self> {
        let closure = Closure {
            suites: vec![Suite::Bookworm],
            default_release: Suite::Bookworm,
            packages: vec![package.into()],
        };
        let root = closure
            .unpack(&Cache::open()?, name, progress)
            .with_context(|| format!("cannot unpack Debian's {package}"))?;
        Ok(Self { root })
    }

    /// Where its libraries are.
    pub(super) fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib/x86_64-linux-gnu")
    }

    /// Runs one of its programs, which is there in the packages.
    pub(super) fn command(&self, program: &str) -> Command {
        let libraries = self.libraries();
        // The host's own loader and libraries may be too old for it.
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.root.join(program));
        command
    }
}
