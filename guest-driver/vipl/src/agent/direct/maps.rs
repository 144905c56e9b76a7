//! What lies in this process's address space: `/proc/self/maps`.

use std::fs;
use std::io;
use std::ops::Range;

use super::ram::FileId;

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// Addresses.
    pub(super) range: Range<usize>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    pub(super) shared: bool,
    /// Offset of the first byte in the file.
    pub(super) offset: u64,
    pub(super) file: FileId,
    /// Path of the file, or a name in brackets, or nothing.
    pub(super) name: String,
}

/// The mappings that overlap `range`, in order.
pub(super) fn areas_of(range: &Range<usize>) -> io::Result<Vec<Area>> {
    let maps = fs::read("/proc/self/maps")?;
    let maps = String::from_utf8_lossy(&maps);
    Ok(maps
        .lines()
        .filter_map(parse)
        .skip_while(|area| area.range.end <= range.start)
        .take_while(|area| area.range.start < range.end)
        .collect())
}

/// One line: `55d0-55e0 rw-p 00001000 fe:01 1234    /path`, numbers in hexadecimal but for the inode.
fn parse(line: &str) -> Option<Area> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    let name = fields.next().unwrap_or_default().trim_start();
    Some(Area {
        range: usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?,
        readable: *permissions.first()? == b'r',
        writable: *permissions.get(1)? == b'w',
        executable: *permissions.get(2)? == b'x',
        shared: *permissions.get(3)? == b's',
        offset: u64::from_str_radix(offset, 16).ok()?,
        file: FileId {
            major: u32::from_str_radix(major, 16).ok()?,
            minor: u32::from_str_radix(minor, 16).ok()?,
            inode: inode.parse().ok()?,
        },
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let area = parse("7f5c1a000000-7f5c1a021000 rw-s 0000f000 00:01 2051     /memfd:a b (deleted)");
        let expected = Area {
            range: 0x7f5c_1a00_0000..0x7f5c_1a02_1000,
            readable: true,
            writable: true,
            executable: false,
            shared: true,
            offset: 0xf000,
            file: FileId { major: 0, minor: 1, inode: 2051 },
            name: "/memfd:a b (deleted)".into(),
        };
        assert_eq!(area, Some(expected));
        let vsyscall = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
        let area = parse(vsyscall).expect("a line");
        assert!(!area.readable && !area.writable && area.executable && !area.shared);
        assert_eq!(area.name, "[vsyscall]");
        assert_eq!(parse("ffffffffff600000-ffffffffff601000"), None);
    }

    #[test]
    fn this_process_has_what_it_uses() {
        let local = 0_u8;
        let here = std::ptr::from_ref(&local).addr();
        let areas = areas_of(&(here..here + 1)).expect("/proc is mounted");
        assert_eq!(areas.len(), 1);
        assert!(areas[0].range.contains(&here) && areas[0].writable);
    }
}
