//! What `make install` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vianic::run_dir::RunDir;
use vianic::workspace;

use crate::program::{self, program};

/// VIPL and the tools of this build, installed under a prefix of their own that goes with it.
#[derive(Debug)]
pub struct Installation(RunDir);

impl Installation {
    /// Builds and installs.
    ///
    /// # Errors
    /// If something does not compile, or `make install` fails.
    pub fn new() -> Result<Self> {
        let place = RunDir::new()?;
        let library = program("libvipl.so")?;
        program("vip-info")?;
        program::device()?;
        let built = library.parent().context("the library is in a folder")?;
        run(Command::new("make")
            .arg("install")
            .arg(format!("PREFIX={}", place.path().display()))
            .arg(format!("BUILT={}", built.display()))
            .current_dir(workspace::root()?))?;
        Ok(Self(place))
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        self.0.path()
    }

    /// Where the libraries are.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.prefix().join("lib")
    }

    /// What pkg-config says of VIPL.
    ///
    /// # Errors
    /// If it does not know it.
    pub fn pkg_config(&self, options: &[&str]) -> Result<Vec<String>> {
        let answer = run(Command::new("pkg-config")
            .args(options)
            .arg("vipl")
            .env("PKG_CONFIG_PATH", self.libraries().join("pkgconfig")))?;
        Ok(answer.split_whitespace().map(str::to_owned).collect())
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
