//! What is installed can be found, linked with and loaded by programs.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::vianic::workspace;
use vianic_tests::{CProgram, DirectCards, Installation};

/// One for all tests: making it builds everything.
fn installation() -> Result<&'static Installation> {
    static INSTALLATION: LazyLock<Result<Installation>> = LazyLock::new(Installation::new);
    INSTALLATION.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// The functions that the header declares.
fn declared() -> Result<BTreeSet<String>> {
    let header = std::fs::read_to_string(installation()?.prefix().join("include/vipl.h"))?;
    let words = header.match_indices("Vip").map(|(at, _)| &header[at..]);
    let names = words.filter_map(|text| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric())?;
        text[end..].starts_with('(').then(|| text[..end].to_owned())
    });
    Ok(names.collect())
}

fn succeeds(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// A program between the VIs of one NIC, linked as pkg-config says.
fn runs(test: &'static str, options: &[String], load: bool) -> Result<()> {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let program = CProgram::with_options(&["old_style.c"], &options)?;
    let cards = DirectCards::launch(test, 1)?;
    let mut command = Command::new(program.path());
    command.arg(cards.nic(0)).env_remove("LD_LIBRARY_PATH");
    if load {
        command.env("LD_LIBRARY_PATH", installation()?.libraries());
    }
    succeeds(&mut command)?;
    cards.stop()
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() -> Result<()> {
    let declared = declared()?;
    assert_eq!(declared.len(), 46, "{declared:?}");
    let library = installation()?.libraries().join("libvipl.so.1");
    let symbols =
        succeeds(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(&library))?;
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert_eq!(exported, declared);
    let dynamic = succeeds(Command::new("objdump").arg("--private-headers").arg(&library))?;
    ensure!(dynamic.lines().any(|line| line.split_whitespace().eq(["SONAME", "libvipl.so.1"])), "{dynamic}");
    Ok(())
}

#[test]
fn a_program_links_dynamically() -> Result<()> {
    let options = installation()?.pkg_config(&["--cflags", "--libs"])?;
    runs("a program links dynamically", &options, true)
}

#[test]
fn a_program_links_statically() -> Result<()> {
    let mut options = installation()?.pkg_config(&["--static", "--cflags", "--libs"])?;
    options.insert(0, "-static".to_owned());
    runs("a program links statically", &options, false)
}

#[test]
fn a_program_links_by_the_name_of_another_provider() -> Result<()> {
    let mut options = installation()?.pkg_config(&["--cflags", "--libs-only-L"])?;
    options.push("-lgnivipl".to_owned());
    runs("a program links by the name of another provider", &options, true)
}

#[test]
fn a_program_loads_the_library_and_finds_every_function() -> Result<()> {
    let installed = installation()?;
    let options = installed.pkg_config(&["--cflags"])?;
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["-ldl"]).collect();
    let program = CProgram::with_options(&["load.c"], &options)?;
    let cards = DirectCards::launch("a program loads the library", 1)?;
    for library in ["vipl.so", "libvipl.so", "libgnivipl.so", "libvipl.so.1"] {
        succeeds(
            Command::new(program.path())
                .args([library, &cards.nic(0)])
                .args(declared()?)
                .env("LD_LIBRARY_PATH", installed.libraries()),
        )?;
    }
    cards.stop()
}

#[test]
fn the_installed_tools_run_and_the_manual_is_complete() -> Result<()> {
    let prefix = installation()?.prefix();
    let cards = DirectCards::launch("the installed tools run", 1)?;
    let info = succeeds(Command::new(prefix.join("bin/vip-info")).arg(cards.nic(0)))?;
    ensure!(info.contains(&cards.address(0)), "{info}");
    succeeds(Command::new(prefix.join("bin/vianic-device")).arg("--version"))?;
    // Every page that there is, for everybody to read.
    let pages = workspace::root()?.join("guest-driver/vipl/man");
    for page in std::fs::read_dir(&pages).into_iter().flatten() {
        let name = page?.file_name();
        let section = name.to_string_lossy().rsplit('.').next().unwrap_or_default().to_owned();
        let installed = prefix.join("share/man").join(format!("man{section}")).join(&name);
        let metadata = installed.metadata().with_context(|| format!("no {}", installed.display()))?;
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
    }
    cards.stop()
}

#[test]
fn a_package_is_made_below_another_root() -> Result<()> {
    let installed = installation()?;
    let root = installed.prefix().join("root");
    let built = installed.prefix().join("nothing-built");
    let mut install = Command::new("make");
    install.args(["install", "PREFIX=/opt/vianic"]).current_dir(workspace::root()?);
    // Without what is to be installed it says what to do.
    let output = install
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!("BUILT={}", built.display()))
        .output()?;
    ensure!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("make build"));
    ensure!(!root.exists());
    let real = vianic_tests::program("libvipl.so")?;
    let real = real.parent().context("the library is in a folder")?;
    succeeds(install.arg(format!("BUILT={}", real.display())))?;
    let description = std::fs::read_to_string(root.join("opt/vianic/lib/pkgconfig/vipl.pc"))?;
    ensure!(description.starts_with("prefix=/opt/vianic\nlibdir=/opt/vianic/lib\n"), "{description}");
    ensure!(!description.contains('@') && !description.contains("/root"), "{description}");
    ensure!(root.join("opt/vianic/lib/vipl.so").exists());
    Ok(())
}
