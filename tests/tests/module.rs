//! The Kernel Agent builds without a warning for every kernel that it promises to.

use std::path::Path;

use anyhow::{Context as _, Result};
use vianic_images::{
    cache::Cache,
    kernel::{Flavour, Kernel},
    module,
};

fn builds_for(flavour: Flavour, series: &str) -> Result<()> {
    let progress = |line: &str| eprintln!("{line}");
    let cache = Cache::open()?;
    let kernel = Kernel::ensure(&cache, flavour, &progress)?;
    assert!(kernel.version.starts_with(series), "{} has Linux {}", flavour.name(), kernel.version);
    let guest_driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-driver");
    let module = module::ensure(&cache, &kernel, &guest_driver, &progress)
        .with_context(|| format!("the module does not build for {}", flavour.name()))?;
    assert!(module.metadata()?.len() > 0);
    Ok(())
}

#[test]
fn the_module_builds_for_debian_12() -> Result<()> {
    builds_for(Flavour::Debian12, "6.1.")
}

#[test]
fn the_module_builds_for_debian_13() -> Result<()> {
    builds_for(Flavour::Debian13, "6.12.")
}

#[test]
fn the_module_builds_for_debian_13_backports() -> Result<()> {
    builds_for(Flavour::Debian13Backports, "7.")
}
