//! Provisions what a guest needs, step by step: `cargo run -p vianic-images --example provision [GUEST-DRIVER]`.

use std::path::PathBuf;

use vianic_images::{
    Result,
    apt::{Closure, Suite},
    cache::Cache,
    kernel::{Flavour, Kernel},
    module,
};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let progress = |line: &str| eprintln!("{line}");
    let cache = Cache::open()?;
    let qemu = Closure {
        suites: vec![Suite::Trixie, Suite::TrixieBackports],
        default_release: Suite::TrixieBackports,
        packages: vec!["qemu-system-x86".into(), "seabios".into()],
    };
    let driver = std::env::args().nth(1).map(PathBuf::from);
    println!("qemu {}", qemu.unpack(&cache, "qemu", &progress)?.display());
    for flavour in Flavour::ALL {
        let kernel = Kernel::ensure(&cache, flavour, &progress)?;
        println!("{kernel:?}");
        if let Some(driver) = &driver {
            println!("{}", module::ensure(&cache, &kernel, driver, &progress)?.display());
        }
    }
    Ok(())
}
