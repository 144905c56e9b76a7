//! Names of NICs in guests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{CProgram, DirectCards, fabric, install};

#[test]
fn guests_find_each_other_by_name() -> Result<()> {
    let fabric = fabric("guests find each other by name").vms(2).cards(2).launch()?;
    let limit = Limit::new("the tool", Duration::from_secs(180));
    // The second guest's first NIC has the name's first address.
    let server = fabric.start(1, "vip-pingpong --nic nic0")?;
    server.wait_for("waiting", &limit)?;
    fabric.run(0, "vip-pingpong vm2 --iterations 20 --check")?;
    let served = server.collect(&limit)?;
    ensure!(served.status.success(), "{}\n{}", served.status, served.stderr());
    // A guest knows its own name, and a file of the program's own comes before the machine's.
    assert_eq!(fabric.run(1, "hostname")?, "vm2\n");
    let unknown = fabric.try_run(0, "echo > /tmp/hosts; VIANIC_HOSTS=/tmp/hosts vip-pingpong vm2")?;
    ensure!(unknown.stderr().contains("vm2 is neither"), "{}", unknown.stderr());
    // It still has the names when it has booted again.
    fabric.vms()[0].reset()?;
    let hosts = fabric.run(0, "cat /etc/vianic/hosts")?;
    for (vm, nic) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let line = format!("{}\tvm{}", fabric.addresses(vm)[nic], vm + 1);
        ensure!(hosts.lines().any(|other| other == line), "no {line:?} in\n{hosts}");
    }
    fabric.stop()
}

/// Names of each kind that the probing program finds: those of old, those of the devices, and those that are none.
fn found(output: &str) -> Result<Vec<usize>> {
    Ok(output.lines().map(str::parse).collect::<Result<_, _>>()?)
}

#[test]
fn programs_that_try_names_until_one_is_refused_find_the_nics_that_there_are() -> Result<()> {
    let program = CProgram::for_vipl(&["probe.c"])?;
    let fabric = fabric("programs that try names in a guest").cards(2).launch()?;
    let path = install(&fabric, 0, &program)?;
    assert_eq!(found(&fabric.run(0, path)?)?, [2, 2, 2, 2, 2, 2, 0]);
    // Those of the list, whatever else there is.
    assert_eq!(found(&fabric.run(0, &format!("VIANIC_NIC=vianic1 {path}"))?)?, [1, 1, 1, 1, 1, 2, 0]);
    assert_eq!(found(&fabric.run(0, &format!("rmmod vianic; {path}"))?)?, [0; 7]);
    fabric.stop()
}

#[test]
fn programs_that_try_names_over_the_direct_link_find_those_that_are_listed() -> Result<()> {
    let program = CProgram::for_vipl(&["probe.c"])?;
    let cards = DirectCards::launch("programs that try names over the direct link", 3)?;
    let listed = [cards.nic(0), cards.nic(1), cards.nic(2)].join(",");
    let output = Command::new(program.path())
        .env("LD_LIBRARY_PATH", program.libraries())
        .env("VIANIC_NIC", listed)
        .output()?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let devices = (0..).take_while(|n| std::path::Path::new(&format!("/dev/vianic{n}")).exists()).count();
    assert_eq!(found(&String::from_utf8_lossy(&output.stdout))?, [3, 3, 3, 3, 3, devices, 0]);
    cards.stop()
}
