//! QEMU's command line for a guest with cards.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vianic_guest_agent::PORT_NAME;

use crate::accel::Accelerator;
use crate::probe::DEVICE;
use crate::vm::{OnReboot, VmConfig};

/// One event queue and a doorbell queue for each of up to 62 contexts: the device serves 64 queues at most.
const QUEUES: u32 = 63;
const QUEUE_SIZE: u32 = 256;
/// Bytes of the card's virtio configuration space.
const CONFIG_SIZE: u32 = 64;
/// A virtio id that QEMU has a name for and Linux has no driver for.
const VIRTIO_ID: u32 = 38;

/// Where one guest's connections and logs are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) qmp: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) serial: PathBuf,
}

/// All arguments after the QEMU program.
pub(crate) fn arguments(config: &VmConfig, files: &Files) -> Vec<OsString> {
    let mut line = Line::default();
    line.flag("-nodefaults").flag("-no-user-config").option("-display", "none");
    line.option("-name", Value::new("").pair("guest", &config.name).pair("debug-threads", "on"));
    line.option("-machine", "q35,memory-backend=ram");
    let memory = format!("{}M", config.memory_mib);
    // The card reads guest memory: it must be shareable.
    line.option("-object", Value::new("memory-backend-memfd,id=ram,share=on").pair("size", &memory));
    line.option("-m", memory.as_str());
    line.option("-smp", processors(config));
    match config.accelerator {
        Accelerator::Kvm => line.option("-accel", "kvm").option("-cpu", "host"),
        Accelerator::Tcg => line.option("-accel", "tcg,thread=multi").option("-cpu", "max"),
    };
    line.path("-kernel", &config.kernel).path("-initrd", &config.initrd);
    line.option("-append", config.kernel_arguments.as_str());
    if config.on_reboot == OnReboot::Exit {
        line.flag("-no-reboot");
    }
    line.option("-chardev", Value::new("file,id=serial").path("path", &files.serial));
    line.option("-serial", "chardev:serial");
    line.option("-chardev", Value::new("socket,id=qmp").path("path", &files.qmp));
    line.option("-qmp", "chardev:qmp");
    line.option("-chardev", Value::new("socket,id=agent").path("path", &files.agent));
    line.option("-device", "virtio-serial-pci");
    line.option("-device", Value::new("virtserialport,chardev=agent").pair("name", PORT_NAME));
    for (index, socket) in config.cards.iter().enumerate() {
        line.option(
            "-chardev",
            Value::new("socket").pair("id", &format!("card{index}")).path("path", socket),
        );
        line.option("-device", card(index));
    }
    if let Some(network) = &config.network {
        let netdev = Value::new("dgram,id=lan")
            .pair("local.type", "unix")
            .path("local.path", &network.local)
            .pair("remote.type", "unix")
            .path("remote.path", &network.remote);
        line.option("-netdev", netdev);
        // No network to boot from.
        let card = Value::new("virtio-net-pci,netdev=lan,romfile=").pair("mac", &network.mac);
        line.option("-device", card);
    }
    // Runs when the monitor says so: no event before it is missed.
    line.flag("-S");
    line.0.extend(config.qemu_arguments.iter().cloned());
    line.0
}

/// TCG leaves out memory barriers, and makes atomic operations of plain ones, for a machine that can only ever have one processor:
/// nobody else could tell. The card can, and would miss what is posted. So there always is room for another processor.
fn processors(config: &VmConfig) -> Value {
    let processors = Value::new(&config.cpus.to_string());
    match (config.accelerator, config.cpus) {
        (Accelerator::Tcg, 1) => processors.pair("maxcpus", "2"),
        _ => processors,
    }
}

fn card(index: usize) -> Value {
    Value::new(DEVICE)
        .pair("id", &format!("vianic{index}"))
        .pair("chardev", &format!("card{index}"))
        .pair("virtio-id", &VIRTIO_ID.to_string())
        .pair("num_vqs", &QUEUES.to_string())
        .pair("vq_size", &QUEUE_SIZE.to_string())
        .pair("config_size", &CONFIG_SIZE.to_string())
        .pair("page-per-vq", "on")
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into().0);
        self
    }

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.0.push(name.into());
        self.0.push(path.into());
        self
    }
}

/// A value with comma-separated parts, in which a comma of a part is doubled.
struct Value(OsString);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Value {
    fn new(start: &str) -> Self {
        Self(start.into())
    }

    fn pair(self, key: &str, value: &str) -> Self {
        self.path(key, Path::new(value))
    }

    fn path(mut self, key: &str, path: &Path) -> Self {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        if !self.0.is_empty() {
            self.0.push(",");
        }
        self.0.push(key);
        self.0.push("=");
        let doubled = path
            .as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
        self.0.push(OsString::from_vec(doubled.collect()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;
    use crate::quote;
    use crate::vm::tests::config;

    fn files() -> Files {
        Files { qmp: "/r/qmp".into(), agent: "/r/agent".into(), serial: "/r/a,b.log".into() }
    }

    fn line(config: &VmConfig) -> String {
        quote::words(arguments(config, &files()))
    }

    #[test]
    fn every_card_gets_a_socket_and_a_device() {
        let mut config = config();
        config.cards = vec!["/r/0".into(), "/r/1".into()];
        let line = line(&config);
        assert!(line.contains(
            "-chardev socket,id=card1,path=/r/1 -device vhost-user-test-device-pci,id=vianic1,chardev=card1,\
             virtio-id=38,num_vqs=63,vq_size=256,config_size=64,page-per-vq=on"
        ));
        assert_eq!(line.matches(DEVICE).count(), 2);
    }

    #[test]
    fn a_network_joins_two_guests() {
        let mut config = config();
        assert!(!line(&config).contains("-netdev"));
        let network =
            Network { local: "/r/0".into(), remote: "/r/1".into(), mac: "52:54:00:00:00:01".to_owned() };
        config.network = Some(network);
        assert!(line(&config).contains(
            "-netdev dgram,id=lan,local.type=unix,local.path=/r/0,remote.type=unix,remote.path=/r/1 \
             -device virtio-net-pci,netdev=lan,romfile=,mac=52:54:00:00:00:01"
        ));
    }

    #[test]
    fn guest_memory_is_shared_with_the_card() {
        let line = line(&config());
        assert!(line.contains("-machine q35,memory-backend=ram"), "{line}");
        assert!(line.contains("-object memory-backend-memfd,id=ram,share=on,size=512M -m 512M"), "{line}");
    }

    #[test]
    fn accelerators_bring_their_processor() {
        let mut config = config();
        assert!(line(&config).contains("-accel tcg,thread=multi -cpu max"));
        config.accelerator = Accelerator::Kvm;
        assert!(line(&config).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn memory_barriers_of_a_single_processor_are_kept() {
        let mut config = config();
        config.cpus = 1;
        assert!(line(&config).contains("-smp 1,maxcpus=2 -accel tcg"));
        config.accelerator = Accelerator::Kvm;
        assert!(line(&config).contains("-smp 1 -accel kvm"));
        (config.accelerator, config.cpus) = (Accelerator::Tcg, 2);
        assert!(line(&config).contains("-smp 2 -accel tcg"));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert!(line(&config()).contains("path=/r/a,,b.log"));
    }

    #[test]
    fn the_users_arguments_come_last() {
        let mut config = config();
        config.qemu_arguments = vec!["-device".into(), "edu".into()];
        assert!(line(&config).ends_with(" -S -device edu"));
    }

    #[test]
    fn only_some_guests_may_reboot() {
        let mut config = config();
        assert!(line(&config).contains("-no-reboot"));
        config.on_reboot = OnReboot::Restart;
        assert!(!line(&config).contains("-no-reboot"));
    }
}
