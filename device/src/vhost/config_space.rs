//! The virtio configuration space, read-only.

use vianic_abi::nic_memory::{CONFIG_MAGIC, ConfigSpace};
use vianic_abi::{ABI_VERSION, MAX_CONTEXTS};
use zerocopy::IntoBytes as _;

/// `size` bytes from `offset`; zeros beyond the end.
pub(super) fn read(offset: u32, size: u32) -> Vec<u8> {
    let space = ConfigSpace {
        magic: CONFIG_MAGIC,
        abi_version: ABI_VERSION,
        contexts: u32::from(MAX_CONTEXTS),
        reserved: [0; 13],
    };
    let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size)) else { return Vec::new() };
    let rest = space.as_bytes().get(offset..).unwrap_or_default();
    rest.iter().copied().chain(std::iter::repeat(0)).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_size_can_be_read() {
        let whole = read(0, 64);
        assert_eq!(&whole[..4], b"VNIC");
        for offset in 0..256 {
            for size in 0..=256 {
                let part = read(offset, size);
                let expected = (offset..offset + size).map(|at| whole.get(at as usize).copied().unwrap_or(0));
                assert!(part.into_iter().eq(expected), "{size} bytes at {offset}");
            }
        }
        assert_eq!(read(u32::MAX, 4), [0; 4]);
    }
}
