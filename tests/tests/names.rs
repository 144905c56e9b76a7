//! Names of NICs in guests.

use std::time::Duration;

use anyhow::{Result, ensure};
use vianic_tests::fabric;
use vianic_tests::vianic::Limit;

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
