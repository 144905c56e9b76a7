use super::*;
use crate::probe::Origin;
use std::os::unix::fs::PermissionsExt;

/// A guest as most tests want it.
pub(crate) fn config() -> VmConfig {
    VmConfig {
        name: "vm1".to_owned(),
        qemu: Qemu {
            command: vec!["qemu-system-x86_64".into()],
            binary: "/usr/bin/qemu-system-x86_64".into(),
            version: "11.1.3".to_owned(),
            origin: Origin::Path,
        },
        accelerator: Accelerator::Tcg,
        memory_mib: 512,
        cpus: 2,
        kernel: "/k/vmlinuz".into(),
        initrd: "/k/initrd".into(),
        kernel_arguments: "console=ttyS0 quiet".to_owned(),
        files: vec![],
        cards: vec![],
        network: None,
        on_reboot: OnReboot::Exit,
        qemu_arguments: vec![],
        boot_limit: Duration::from_secs(20),
    }
}

#[test]
fn a_qemu_that_refuses_its_arguments_is_reported_with_them() {
    let run_dir = RunDir::new().unwrap();
    let script = run_dir.file("qemu.sh");
    std::fs::write(&script, "#!/bin/sh\necho 'qemu: no such machine' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = config();
    config.qemu.command = vec![script.into()];
    let error = Vm::launch(&config, &run_dir).unwrap_err().to_string();
    assert!(error.contains("vm1: QEMU ended early (exit status: 1)"), "{error}");
    assert!(error.contains("-append 'console=ttyS0 quiet'"), "{error}");
    assert!(error.contains("qemu: no such machine"), "{error}");
}
