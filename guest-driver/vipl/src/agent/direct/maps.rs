//! What lies in this process's address space: `/proc/self/maps`. Newer kernels answer for one address at a time, older ones write
//! everything as text, which takes the longer the more there is.
#![expect(unsafe_code, reason = "an ioctl")]

use std::fs::{self, File};
use std::io;
use std::ops::Range;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::ram::{FileId, in_memory};

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

/// The mappings of the process that made this.
#[derive(Debug)]
pub(super) struct Maps {
    /// `/proc/self/maps`, where the kernel can be asked by ioctl. After a fork it still speaks of the parent.
    queried: Option<File>,
}

impl Maps {
    pub(super) fn of_this_process() -> Self {
        let queried = File::open("/proc/self/maps").ok();
        Self { queried: queried.filter(|file| next_area(file, 0).is_ok()) }
    }

    /// The mappings that overlap `range`, in order.
    ///
    /// # Errors
    /// Without `/proc`.
    pub(super) fn areas_of(&self, range: &Range<usize>) -> io::Result<Vec<Area>> {
        match &self.queried {
            Some(file) => Ok(query(file, range)?),
            None => read(range),
        }
    }
}

/// All mappings of this process, in order.
///
/// # Errors
/// Without `/proc`.
pub(super) fn all() -> io::Result<Vec<Area>> {
    read(&(0..usize::MAX))
}

fn read(range: &Range<usize>) -> io::Result<Vec<Area>> {
    let maps = fs::read("/proc/self/maps")?;
    let maps = String::from_utf8_lossy(&maps);
    Ok(maps
        .lines()
        .filter_map(parse)
        .skip_while(|area| area.range.end <= range.start)
        .take_while(|area| area.range.start < range.end)
        .collect())
}

fn query(file: &File, range: &Range<usize>) -> rustix::io::Result<Vec<Area>> {
    let mut areas = Vec::new();
    let mut address = range.start;
    while address < range.end
        && let Some(area) = next_area(file, address)?
        && area.range.start < range.end
    {
        address = area.range.end;
        areas.push(area);
    }
    Ok(areas)
}

/// `struct procmap_query` of `<linux/fs.h>`, Linux 6.11.
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const PROCMAP_QUERY: Opcode = opcode::read_write::<ProcmapQuery>(b'f', 17);
const VMA_READABLE: u64 = 1 << 0;
const VMA_WRITABLE: u64 = 1 << 1;
const VMA_EXECUTABLE: u64 = 1 << 2;
const VMA_SHARED: u64 = 1 << 3;
const COVERING_OR_NEXT_VMA: u64 = 1 << 4;
/// Bytes that the kernel gives of a name, at most.
const NAME_SIZE: u32 = 4096;

/// The mapping around `address`, or else the next one.
fn next_area(file: &File, address: usize) -> rustix::io::Result<Option<Area>> {
    let mut name = [0_u8; NAME_SIZE as usize];
    let mut query = ProcmapQuery {
        size: size_of::<ProcmapQuery>() as u64,
        query_flags: COVERING_OR_NEXT_VMA,
        query_addr: address as u64,
        vma_name_size: NAME_SIZE,
        vma_name_addr: name.as_mut_ptr().expose_provenance() as u64,
        ..ProcmapQuery::default()
    };
    // SAFETY: the request reads and writes its structure and, up to the size given there, the name.
    match unsafe { ioctl(file, Updater::<PROCMAP_QUERY, _>::new(&mut query)) } {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    }
    let is = |flag| query.vma_flags & flag != 0;
    // The size counts the zero at the end.
    let name = &name[..(query.vma_name_size.saturating_sub(1) as usize).min(name.len())];
    Ok(Some(Area {
        range: in_memory(query.vma_start)..in_memory(query.vma_end),
        readable: is(VMA_READABLE),
        writable: is(VMA_WRITABLE),
        executable: is(VMA_EXECUTABLE),
        shared: is(VMA_SHARED),
        offset: query.vma_offset,
        file: FileId { major: query.dev_major, minor: query.dev_minor, inode: query.inode },
        name: String::from_utf8_lossy(name).into_owned(),
    }))
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
    use std::os::fd::AsFd as _;

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::agent::direct::shared_memory::SharedMemory;

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
        let areas = Maps::of_this_process().areas_of(&(here..here + 1)).expect("/proc is mounted");
        assert_eq!(areas.len(), 1);
        assert!(areas[0].range.contains(&here) && areas[0].writable);
    }

    /// Where the kernel can be asked both ways, it says the same: for memory of each kind, and for holes.
    #[test]
    fn both_ways_to_ask_give_the_same() {
        let memfd = rustix::fs::memfd_create("a name", MemfdFlags::CLOEXEC).expect("a memfd");
        rustix::fs::ftruncate(&memfd, 8 * 4096).expect("room");
        let shared = SharedMemory::map(memfd.as_fd(), 3 * 4096).expect("a mapping");
        let start = shared.base().addr().get();
        let code = (parse as fn(&str) -> Option<Area>) as usize;
        let Some(file) = Maps::of_this_process().queried else {
            eprintln!("this kernel writes text only");
            return;
        };
        for range in [start..start + 3 * 4096, code..code + 1, 0..4096] {
            let (queried, text) = (query(&file, &range), read(&range));
            assert_eq!(queried.expect("an answer"), text.expect("/proc is mounted"), "{range:x?}");
        }
    }
}
