//! A guest boots with its card, and the harness reaches it in every way that tests need.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use vianic_tests::vianic::Limit;
use vianic_tests::vianic::agent::ExecOptions;
use vianic_tests::{ExitStatus, ModuleState, fabric};

#[test]
fn a_guest_boots_with_a_card_and_serves_commands() -> Result<()> {
    let fabric = fabric("a guest boots with a card and serves commands").launch()?;
    let vm = &fabric.vms()[0];

    // The card is on the bus: virtio device 0x1040 + 38.
    let devices = fabric.run(0, "cat /sys/bus/pci/devices/*/device")?;
    assert_eq!(devices.lines().filter(|id| *id == "0x1066").count(), 1, "{devices}");

    // Its driver is loaded and has attached.
    let limit = Limit::new("the guest to tell of itself", Duration::from_secs(60));
    assert_eq!(vm.agent().info(&limit)?.module, ModuleState::Loaded);
    fabric.run(0, "test -c /dev/vianic0")?;

    // All its CPUs are up.
    assert_eq!(fabric.run(0, "nproc")?, "2\n");

    // Exit status, both outputs, environment and input.
    let options = ExecOptions {
        env: vec![("WORD".to_owned(), "hello".to_owned())],
        stdin: Some(b"from the host".to_vec()),
        ..ExecOptions::default()
    };
    let output = vm.exec(&["/bin/sh", "-c", "echo $WORD >&2; cat; exit 42"], &options)?;
    assert_eq!(output.status, ExitStatus::Code(42));
    assert_eq!(output.stdout(), "from the host");
    assert_eq!(output.stderr(), "hello\n");
    assert_eq!(fabric.try_run(0, "kill -TERM $$")?.status, ExitStatus::Signal(15));

    // Files both ways, larger than any window on the way.
    let contents: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    vm.write_file("/tmp/new/file", 0o750, &contents)?;
    assert_eq!(fabric.run(0, "stat -c '%a %s' /tmp/new/file")?, "750 3145728\n");
    assert!(vm.read_file("/tmp/new/file")? == contents, "the file came back changed");
    assert!(vm.read_file("/nonexistent").is_err());

    // Several commands at once, and one that is ended from here.
    let waiting = fabric.start(0, "echo ready; read line; test \"$line\" = it")?;
    let endless = fabric.start(0, "exec sleep 100000")?;
    let limit = Limit::new("the commands", Duration::from_secs(120));
    waiting.wait_for("ready", &limit)?;
    fabric.run(0, "true")?;
    waiting.handle().send(b"it\n");
    assert_eq!(waiting.collect(&limit)?.status, ExitStatus::Code(0));
    endless.signal(15);
    assert_eq!(endless.collect(&limit)?.status, ExitStatus::Signal(15));
    fabric.stop()
}

#[test]
fn a_guest_survives_resets_and_stops() -> Result<()> {
    let fabric = fabric("a guest survives resets and stops").launch()?;
    let vm = &fabric.vms()[0];
    fabric.run(0, "touch /tmp/before")?;
    vm.reset()?;
    assert!(!fabric.try_run(0, "test -e /tmp/before")?.status.success(), "the guest has not booted again");
    fabric.run(0, "test -c /dev/vianic0")?;
    vm.reboot()?;
    fabric.run(0, "test -c /dev/vianic0")?;

    let limit = Limit::new("QEMU's event", Duration::from_secs(60));
    let mut mark = vm.qmp().mark();
    vm.qmp().execute("stop", serde_json::Value::Null)?;
    vm.qmp().wait_event("STOP", &mut mark, &limit)?;
    vm.qmp().execute("cont", serde_json::Value::Null)?;
    vm.qmp().wait_event("RESUME", &mut mark, &limit)?;
    assert_eq!(fabric.run(0, "echo alive")?, "alive\n");

    vm.agent().power_off(&Limit::new("the guest to power off", Duration::from_secs(60)))?;
    assert!(vm.wait_exit(&Limit::new("QEMU to end", Duration::from_secs(120)))?.success());
    fabric.stop()
}

#[test]
fn a_panic_of_the_guest_is_in_the_error() -> Result<()> {
    let fabric = fabric("a panic of the guest is in the error").launch()?;
    let error = fabric.try_run(0, "echo c > /proc/sysrq-trigger; sleep 100000").unwrap_err().to_string();
    assert!(error.contains("Kernel panic - not syncing: sysrq triggered crash"), "{error}");
    assert!(error.contains("-device vhost-user-test-device-pci"), "{error}");
    fabric.stop()
}

#[test]
fn a_card_process_that_dies_ends_every_wait() -> Result<()> {
    let fabric = fabric("a card process that dies ends every wait").launch()?;
    let command = fabric.start(0, "exec sleep 100000")?;
    let card = fabric.card().context("a card was asked for")?.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &card]).status()?.success());
    let error =
        command.collect(&Limit::new("the command", Duration::from_secs(120))).unwrap_err().to_string();
    assert!(error.contains("the card process has ended"), "{error}");
    let error = fabric.stop().unwrap_err().to_string();
    assert!(error.contains("vianic-device ended early (signal: 9 (SIGKILL))"), "{error}");
    assert!(error.contains("listening on"), "the log is missing: {error}");
    Ok(())
}
