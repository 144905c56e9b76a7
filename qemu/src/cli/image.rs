//! `vianic image`.

use anyhow::Result;
use clap::{Args, Subcommand};
use vianic::image::{self, ImageOptions};

use super::output;

/// Builds the guest image, or shows where it is. Other commands build it by themselves when they need it.
#[derive(Debug, Args)]
pub(super) struct Image {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the image, as far as it is not in the cache, and show it.
    Build {
        /// More Debian packages in the image (repeatable).
        #[arg(long = "package", value_name = "NAME")]
        packages: Vec<String>,
    },
}

impl Image {
    pub(super) fn execute(self) -> Result<u8> {
        let Action::Build { packages } = self.action;
        let image = image::ensure(&ImageOptions { packages, ..ImageOptions::default() })?;
        let text = format!(
            "kernel   {}  ({})\ninitrd   {}\ncmdline  {}\n",
            image.kernel.display(),
            image.kernel_version,
            image.initrd.display(),
            image.cmdline
        );
        output::print(text.as_bytes())?;
        Ok(0)
    }
}
