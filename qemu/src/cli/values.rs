//! Values as users write them.

use std::path::PathBuf;
use std::time::Duration;

/// `512M`, `2G` or a number of MiB.
pub(super) fn memory(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let mib = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    match mib {
        Some(mib) if mib >= 128 => Ok(mib),
        Some(_) => Err("a guest needs 128M at least".to_owned()),
        None => Err("write a size such as 512M or 2G".to_owned()),
    }
}

/// `90s`, `10m`, `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a time such as 90s or 10m"))
}

/// A number of guests.
pub(super) fn guests(text: &str) -> Result<usize, String> {
    number(text, 1, 64)
}

/// A number of NICs in a guest.
pub(super) fn cards(text: &str) -> Result<usize, String> {
    number(text, 0, 16)
}

fn number(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("write a number from {least} to {most}"))
}

/// A file of the host and where it goes in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) host: PathBuf,
    pub(super) guest: String,
}

/// `HOST[:GUEST]`.
pub(super) fn copy(text: &str) -> Result<Copy, String> {
    let (host, guest) = match text.split_once(':') {
        Some((host, guest)) if guest.starts_with('/') => (host, guest.to_owned()),
        Some(_) => return Err("the path in the guest must start with /".to_owned()),
        None => {
            let name = PathBuf::from(text).canonicalize().map_err(|error| error.to_string())?;
            let name = name.file_name().and_then(|name| name.to_str());
            let name = name.ok_or("this has no name; write HOST:GUEST")?;
            (text, format!("/root/{name}"))
        }
    };
    if host.is_empty() {
        return Err("write HOST or HOST:GUEST".to_owned());
    }
    Ok(Copy { host: host.into(), guest })
}

/// A shell command for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) vm: usize,
    pub(super) command: String,
}

/// `VM:COMMAND`.
pub(super) fn start(text: &str) -> Result<Start, String> {
    let (vm, command) = text.split_once(':').ok_or("write VM:COMMAND, such as 2:vip-pingpong")?;
    let vm = vm.parse().ok().filter(|vm| *vm > 0).ok_or("guests are numbered from 1")?;
    Ok(Start { vm, command: command.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(memory("512M"), Ok(512));
        assert_eq!(memory("2g"), Ok(2048));
        assert_eq!(memory("300"), Ok(300));
        for bad in ["", "G", "1T", "-1", "127", "99999999G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn copies() {
        let two = copy("a/b:/c:d").unwrap();
        assert_eq!((two.host, two.guest.as_str()), ("a/b".into(), "/c:d"));
        assert_eq!(copy(env!("CARGO_MANIFEST_DIR")).unwrap().guest, "/root/qemu");
        for bad in ["", ":/x", "x:y", "/nonexistent-file"] {
            assert!(copy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn starts() {
        assert_eq!(start("2:sh -c 'a:b'").unwrap(), Start { vm: 2, command: "sh -c 'a:b'".to_owned() });
        for bad in ["", "vip-info", "0:x", "x:y"] {
            assert!(start(bad).is_err(), "{bad}");
        }
    }
}
