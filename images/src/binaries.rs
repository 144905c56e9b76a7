//! Builds this project's own programs and libraries for guests.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{
    Progress, command,
    error::{Error, Result},
    guest::GuestFile,
};

const AGENT: &str = "vianic-guest-agent";
const TARGET: &str = "x86_64-unknown-linux-gnu";
const NEEDS_CARGO: &str = " (the guest's programs are built from source: the Rust toolchain is needed)";

/// Packages whose programs guests get, besides the agent; and packages whose shared library they get.
const TOOLS: [&str; 1] = ["vianic-tools"];
const LIBRARIES: [&str; 1] = ["vipl"];

/// What was built.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The guest agent.
    pub agent: PathBuf,
    /// Tools and libraries.
    pub files: Vec<GuestFile>,
}

/// Builds the agent and the tools (static, so that they run in any image) and the libraries from the
/// workspace in this folder.
///
/// # Errors
/// If cargo can't be run, or something doesn't compile.
pub fn build(workspace: &Path, progress: Progress<'_>) -> Result<Binaries> {
    progress("building the guest's programs");
    let mut packages = vec![AGENT];
    packages.extend(TOOLS);
    let programs = cargo(workspace, "static", &packages, "-C target-feature=+crt-static")?;
    let libraries = cargo(workspace, "shared", &LIBRARIES, "")?;

    let mut agent = None;
    let mut files = Vec::new();
    for program in programs.into_iter().filter_map(|artifact| artifact.executable) {
        let name = program.file_name().unwrap_or_default().to_owned();
        if name == AGENT {
            agent = Some(program);
        } else {
            files.push(GuestFile {
                host: program,
                guest: Path::new("/usr/bin").join(name),
                mode: 0o755,
                aliases: vec![],
            });
        }
    }
    for artifact in
        libraries.into_iter().filter(|artifact| artifact.target.kind.iter().any(|kind| kind == "cdylib"))
    {
        let shared = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "so");
        for library in artifact.filenames.into_iter().filter(shared) {
            let name = library.file_name().unwrap_or_default().to_owned();
            files.push(GuestFile {
                guest: Path::new("/usr/lib/x86_64-linux-gnu").join(name),
                host: library,
                mode: 0o644,
                aliases: ALIASES.map(str::to_owned).into(),
            });
        }
    }
    let agent = agent.ok_or_else(|| Error::Missing { what: AGENT.into(), place: workspace.to_path_buf() })?;
    Ok(Binaries { agent, files })
}

/// The names under which programs look for the library: the one that they were linked with, and what other providers
/// called theirs.
const ALIASES: [&str; 3] = ["libvipl.so.1", "vipl.so", "libgnivipl.so"];

/// Builds packages in a target folder of their own, so that other builds' flags don't undo these, and returns
/// what came out of those that belong to the workspace.
fn cargo(workspace: &Path, folder: &str, packages: &[&str], flags: &str) -> Result<Vec<Artifact>> {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace);
    command.args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"]);
    // With a target named, the flags don't apply to build scripts.
    command.args(["--target", TARGET, "--target-dir"]).arg(workspace.join("target/guest").join(folder));
    for package in packages {
        command.args(["--package", package]);
    }
    command.env("RUSTFLAGS", flags).env_remove("CARGO_ENCODED_RUSTFLAGS");
    // A guest holds them in memory; function names stay, for backtraces.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let output = command::output(&mut command, NEEDS_CARGO)?;
    if !output.status.success() {
        return Err(Error::Failed {
            program: command::shown(&command),
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(artifacts(&String::from_utf8_lossy(&output.stdout), packages))
}

/// The artifacts of these packages in cargo's messages.
fn artifacts(messages: &str, packages: &[&str]) -> Vec<Artifact> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.reason == "compiler-artifact")
        .filter(|artifact| packages.iter().any(|package| artifact.belongs_to(package)))
        .collect()
}

/// The message in which cargo tells what it has built.
#[derive(Debug, Deserialize)]
struct Artifact {
    reason: String,
    package_id: String,
    target: Target,
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Artifact {
    /// Ids are `path+file:///folder#name@version`, or without the name if the folder is called the same.
    fn belongs_to(&self, package: &str) -> bool {
        let (folder, fragment) = self.package_id.rsplit_once('#').unwrap_or((&self.package_id, ""));
        match fragment.split_once('@') {
            Some((name, _)) => name == package,
            None => folder.rsplit('/').next() == Some(package),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_messages_are_read() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"registry+index#cfg@1.0.0","target":{"kind":["bin"]},"filenames":["/t/other"],"executable":"/t/other"}
{"reason":"compiler-message","package_id":"path+file:///w/tools#vianic-tools@0.1.0","target":{"kind":["lib"]}}
{"reason":"compiler-artifact","package_id":"path+file:///w/tools#vianic-tools@0.1.0","target":{"kind":["bin"]},"filenames":["/t/vip-info"],"executable":"/t/vip-info"}
{"reason":"compiler-artifact","package_id":"path+file:///w/vipl#0.1.0","target":{"kind":["rlib","cdylib"]},"filenames":["/t/libvipl.rlib","/t/libvipl.so"],"executable":null}
not json
{"reason":"build-finished","success":true}
"#;
        let programs = artifacts(messages, &["vianic-tools"]);
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].executable.as_deref(), Some(Path::new("/t/vip-info")));
        let libraries = artifacts(messages, &["vipl"]);
        assert_eq!(libraries[0].filenames[1], Path::new("/t/libvipl.so"));
    }
}
