//! The guest image: built from the source tree and Debian packages, kept in the cache.

use vianic_images::cache::Cache;
pub use vianic_images::guest::GuestImage;
use vianic_images::guest::GuestSpec;
use vianic_images::kernel::{Flavour, Kernel};
use vianic_images::{binaries, module};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::workspace;

/// What goes into an image besides the vianic driver and tools.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// More Debian packages.
    pub packages: Vec<String>,
    /// Leaves the kernel module out, for guests that bring a driver of their own.
    pub no_driver: bool,
}

/// Builds the image, as far as it is not in the cache.
pub fn ensure(options: &ImageOptions) -> Result<GuestImage> {
    let progress = Progress::new();
    let progress = |step: &str| progress.step(step);
    let root = workspace::root()?;
    let cache = Cache::open().map_err(Error::image("the cache"))?;
    let kernel =
        Kernel::ensure(&cache, Flavour::Debian13, &progress).map_err(Error::image("the guest's kernel"))?;
    let module = if options.no_driver {
        None
    } else {
        let module = module::ensure(&cache, &kernel, &root.join("guest-driver"), &progress);
        Some(module.map_err(Error::image("the kernel module"))?)
    };
    let binaries = binaries::build(&root, &progress).map_err(Error::image("the guest's programs"))?;
    let spec = GuestSpec {
        kernel,
        agent: binaries.agent,
        module,
        files: binaries.files,
        packages: options.packages.clone(),
    };
    GuestImage::ensure(&cache, &spec, &progress).map_err(Error::image("the guest image"))
}
