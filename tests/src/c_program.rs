//! C programs that are compiled for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vianic::run_dir::RunDir;
use vianic::workspace;

use crate::program;

/// A compiled C program, in a directory that goes with it.
#[derive(Debug)]
pub struct CProgram {
    directory: RunDir,
    path: PathBuf,
}

impl CProgram {
    /// A program for the Kernel Agent's calls. It needs no libraries, so that it runs in any guest.
    ///
    /// # Errors
    /// If it does not compile without a warning.
    pub fn for_kernel_agent(sources: &[&str]) -> Result<Self> {
        compile(&programs(sources)?, |command, _| {
            command.args(["-std=gnu11", "-static", "-pthread"]);
            command.arg("-I").arg(workspace::root()?.join("guest-driver/abi/include"));
            Ok(())
        })
    }

    /// A program for VIPL, in the C of 1989. It takes the library from the system, or from [`CProgram::libraries`].
    ///
    /// # Errors
    /// If it does not compile without a warning.
    pub fn for_vipl(sources: &[&str]) -> Result<Self> {
        compile(&programs(sources)?, |command, directory| {
            command.args(["-std=c89", "-pedantic", "-D_REENTRANT"]);
            link_vipl(command, directory)
        })
    }

    /// The conformance suite, `tests/conformance`.
    ///
    /// # Errors
    /// If it does not compile without a warning.
    pub fn conformance_suite() -> Result<Self> {
        compile(&Self::conformance_sources()?, |command, directory| {
            command.args(["-std=c99", "-pedantic", "-D_GNU_SOURCE"]);
            link_vipl(command, directory)
        })
    }

    /// The tests of the conformance suite, as its `--list` gives them.
    ///
    /// # Errors
    /// If the program is another one.
    pub fn list(&self) -> Result<String> {
        let output =
            Command::new(&self.path).arg("--list").env("LD_LIBRARY_PATH", self.libraries()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The conformance suite's sources.
    ///
    /// # Errors
    /// If they are not there.
    pub fn conformance_sources() -> Result<Vec<PathBuf>> {
        let mut sources = vec![];
        for entry in std::fs::read_dir(workspace::root()?.join("tests/conformance"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c") {
                sources.push(path);
            }
        }
        sources.sort();
        Ok(sources)
    }

    /// A program in the C of 1989 that takes these options of the compiler behind its sources.
    ///
    /// # Errors
    /// If it does not compile without a warning.
    pub fn with_options(sources: &[&str], options: &[&str]) -> Result<Self> {
        compile(&programs(sources)?, |command, _| {
            command.args(["-std=c89", "-pedantic", "-D_REENTRANT", "-pthread"]).args(options);
            Ok(())
        })
    }

    /// The program's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the program finds the libraries that it was linked with, for `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn libraries(&self) -> &Path {
        self.directory.path()
    }
}

fn programs(sources: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = workspace::root()?.join("tests/programs");
    Ok(sources.iter().map(|source| folder.join(source)).collect())
}

/// Links with this build's VIPL, under the names that programs look for in `directory`.
fn link_vipl(command: &mut Command, directory: &Path) -> Result<()> {
    let library = program("libvipl.so")?;
    for name in ["libvipl.so", "libvipl.so.1"] {
        std::os::unix::fs::symlink(&library, directory.join(name))?;
    }
    command.arg("-pthread");
    command.arg("-I").arg(workspace::root()?.join("guest-driver/vipl/include"));
    command.arg("-L").arg(directory).arg("-lvipl");
    Ok(())
}

/// Compiles a program; `options` adds what stands behind the sources.
fn compile(sources: &[PathBuf], options: impl FnOnce(&mut Command, &Path) -> Result<()>) -> Result<CProgram> {
    let directory = RunDir::new()?;
    let path = directory.path().join("program");
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&path).args(sources);
    options(&mut command, directory.path())?;
    let output = command.output().context("cannot run cc: install a C compiler")?;
    ensure!(output.status.success(), "cc {sources:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(CProgram { directory, path })
}
