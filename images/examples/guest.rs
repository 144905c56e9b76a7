//! Makes a guest image: `cargo run -p vianic-images --example guest WORKSPACE FLAVOUR [GUEST-DRIVER]`.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use vianic_images::{
    Result, binaries,
    cache::Cache,
    guest::{GuestImage, GuestSpec},
    kernel::{Flavour, Kernel},
    module,
};

fn main() -> ExitCode {
    match run() {
        Ok(image) => {
            println!("{image:#?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<GuestImage> {
    let progress = |line: &str| eprintln!("{line}");
    let mut arguments = env::args().skip(1).map(PathBuf::from);
    let workspace = arguments.next().unwrap_or_else(|| ".".into());
    let cache = Cache::open()?;
    let flavour = match arguments.next().as_deref().and_then(Path::to_str) {
        Some("debian12") => Flavour::Debian12,
        Some("debian13-backports") => Flavour::Debian13Backports,
        _ => Flavour::Debian13,
    };
    let kernel = Kernel::ensure(&cache, flavour, &progress)?;
    let binaries = binaries::build(&workspace, &progress)?;
    let module = match arguments.next() {
        Some(driver) => Some(module::ensure(&cache, &kernel, &driver, &progress)?),
        None => None,
    };
    let spec =
        GuestSpec { kernel, agent: binaries.agent, module, files: binaries.files, packages: Vec::new() };
    GuestImage::ensure(&cache, &spec, &progress)
}
