//! Guests and cards for one test.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vianic::agent::{ExecOptions, Output, Process};
use vianic::fabric::{Fabric, FabricConfig};
use vianic::image::{self, GuestImage, ImageOptions};
use vianic::run_dir::RunDir;
use vianic::vm::OnReboot;

use crate::{artifacts, program};

/// How long a command in a guest may take: generous, as guests may run without KVM beside other tests.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Starts to describe the guests of a test: one guest with one card, if nothing else is said.
pub fn fabric(test: &'static str) -> Builder {
    // The first test of a process starts the log.
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .is_test(true)
        .try_init();
    Builder {
        test,
        vms: 1,
        cards: 1,
        on_reboot: OnReboot::Exit,
        device_arguments: vec![],
        qemu_arguments: vec![],
        memory_mib: 512,
    }
}

/// The guests of a test, before they are started.
#[derive(Debug, Clone)]
pub struct Builder {
    test: &'static str,
    vms: usize,
    cards: usize,
    memory_mib: u32,
    on_reboot: OnReboot,
    device_arguments: Vec<String>,
    qemu_arguments: Vec<OsString>,
}

impl Builder {
    /// This many guests.
    #[must_use]
    pub fn vms(self, vms: usize) -> Self {
        Self { vms, ..self }
    }

    /// This many cards in each guest.
    #[must_use]
    pub fn cards(self, cards: usize) -> Self {
        Self { cards, ..self }
    }

    /// This much memory in each guest.
    #[must_use]
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// What a guest's wish to boot again leads to.
    #[must_use]
    pub fn on_reboot(self, on_reboot: OnReboot) -> Self {
        Self { on_reboot, ..self }
    }

    /// One more argument for the card process.
    #[must_use]
    pub fn device_argument(mut self, argument: impl Into<String>) -> Self {
        self.device_arguments.push(argument.into());
        self
    }

    /// More arguments for QEMU.
    #[must_use]
    pub fn qemu_arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.qemu_arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts everything and waits until all guests have booted.
    pub fn launch(self) -> Result<TestFabric> {
        let test = self.test;
        let device = if self.cards > 0 { Some(program::device()?) } else { None };
        let config = FabricConfig {
            vms: self.vms,
            cards: self.cards,
            memory_mib: self.memory_mib,
            on_reboot: self.on_reboot,
            device,
            device_arguments: self.device_arguments,
            qemu_arguments: self.qemu_arguments,
            ..FabricConfig::new(image()?)
        };
        match Fabric::launch_in(RunDir::new()?, &config) {
            Ok(fabric) => Ok(TestFabric { test, fabric: Some(fabric) }),
            Err((error, run_dir)) => {
                artifacts::keep_run_dir(test, &run_dir);
                Err(error.into())
            }
        }
    }
}

/// The guests and cards of a test. Keeps the logs if it is dropped before [`TestFabric::stop`].
#[derive(Debug)]
pub struct TestFabric {
    test: &'static str,
    /// Present until `stop`.
    fabric: Option<Fabric>,
}

impl TestFabric {
    /// Runs a shell command in a guest and returns what it wrote to standard output. It must succeed.
    pub fn run(&self, vm: usize, command: &str) -> Result<String> {
        let output = self.try_run(vm, command)?;
        ensure!(
            output.status.success(),
            "`{command}` in guest {vm}: {}\n{}{}",
            output.status,
            output.stdout(),
            output.stderr()
        );
        Ok(output.stdout())
    }

    /// Runs a shell command in a guest to whatever end.
    pub fn try_run(&self, vm: usize, command: &str) -> Result<Output> {
        let options = ExecOptions { limit: COMMAND_LIMIT, ..ExecOptions::default() };
        let vm = self.vms().get(vm).context("no such guest")?;
        Ok(vm.exec(&["/bin/sh", "-c", command], &options)?)
    }

    /// Starts a shell command in a guest, with an open standard input.
    pub fn start(&self, vm: usize, command: &str) -> Result<Process> {
        let vm = self.vms().get(vm).context("no such guest")?;
        let options = ExecOptions { stdin: Some(vec![]), ..ExecOptions::default() };
        Ok(vm.spawn(&["/bin/sh", "-c", command], &options)?)
    }

    /// The address of a guest's first card.
    pub fn address(&self, vm: usize) -> Result<String> {
        match self.addresses(vm) {
            [first, ..] => Ok(first.to_string()),
            [] => bail!("guest {vm} has no card"),
        }
    }

    /// Ends the guests and the cards; the card process must end cleanly.
    pub fn stop(mut self) -> Result<()> {
        match self.fabric.take() {
            Some(fabric) => fabric.stop().map_err(Into::into),
            None => Ok(()),
        }
    }
}

impl Deref for TestFabric {
    type Target = Fabric;

    fn deref(&self) -> &Fabric {
        self.fabric.as_ref().expect("only `stop`, which consumes self, takes it")
    }
}

impl DerefMut for TestFabric {
    fn deref_mut(&mut self) -> &mut Fabric {
        self.fabric.as_mut().expect("only `stop`, which consumes self, takes it")
    }
}

impl Drop for TestFabric {
    fn drop(&mut self) {
        if let Some(fabric) = &self.fabric {
            artifacts::keep_fabric(self.test, fabric);
        }
    }
}

/// The image of all tests, built once in a test process.
fn image() -> Result<GuestImage> {
    static IMAGE: Mutex<Option<GuestImage>> = Mutex::new(None);
    let mut image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if image.is_none() {
        *image = Some(image::ensure(&ImageOptions::default())?);
    }
    image.clone().context("the image is there now")
}
