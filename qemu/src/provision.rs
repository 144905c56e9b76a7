//! QEMU from Debian packages, unpacked into the cache and never installed.

use std::ffi::OsString;
use std::path::PathBuf;

use vianic_images::apt::{Closure, Suite};
use vianic_images::cache::Cache;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// An unpacked QEMU.
pub(crate) struct Provisioned {
    /// Its own dynamic loader, its libraries, the program and its firmware.
    pub(crate) command: Vec<OsString>,
    /// The program itself.
    pub(crate) binary: PathBuf,
}

/// Unpacks QEMU into the cache, unless it is there.
pub(crate) fn provide() -> Result<Provisioned> {
    let what = "QEMU";
    let cache = Cache::open().map_err(Error::image(what))?;
    let closure = Closure {
        suites: vec![Suite::Trixie, Suite::TrixieBackports],
        default_release: Suite::TrixieBackports,
        packages: vec!["qemu-system-x86".to_owned(), "seabios".to_owned()],
    };
    let progress = Progress::new();
    let root = closure.unpack(&cache, "qemu", &|step| progress.step(step)).map_err(Error::image(what))?;
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let binary = root.join("usr/bin/qemu-system-x86_64");
    let command = vec![
        // The host's own loader and libraries may be too old for it.
        libraries.join("ld-linux-x86-64.so.2").into(),
        "--library-path".into(),
        libraries.into(),
        binary.clone().into(),
        "-L".into(),
        root.join("usr/share/seabios").into(),
        "-L".into(),
        root.join("usr/share/qemu").into(),
    ];
    Ok(Provisioned { command, binary })
}
