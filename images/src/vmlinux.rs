//! The kernel proper inside a compressed kernel image.
//!
//! In an emulated machine the kernel takes a second to unpack itself. QEMU can start an unpacked kernel that
//! has the PVH entry point, as Debian's have.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

/// Far more than any kernel: a damaged image can't fill the memory.
const MOST: u64 = 512 << 20;

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The head of the ELF note that tells the PVH entry point: sizes of name and content, type 18, name "Xen".
const PVH_NOTE: [u8; 16] = *b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0";

/// Unpacks a kernel image; `None` if it can't be started directly (it isn't compressed with zstd, or has no
/// PVH entry point), and has to unpack itself.
pub(crate) fn unpack(image: &[u8]) -> Option<Vec<u8>> {
    let payload = payload(image)?;
    if !payload.starts_with(&ZSTD) {
        return None;
    }
    let mut kernel = Vec::new();
    StreamingDecoder::new(payload).ok()?.take(MOST).read_to_end(&mut kernel).ok()?;
    let startable =
        kernel.starts_with(b"\x7fELF") && kernel.windows(PVH_NOTE.len()).any(|part| part == PVH_NOTE);
    startable.then_some(kernel)
}

/// The compressed part, as the x86 boot protocol tells where it is.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let version = u16::from_le_bytes(image.get(0x206..0x208)?.try_into().ok()?);
    if image.get(0x202..0x206)? != b"HdrS" || version < 0x208 {
        return None;
    }
    // Sectors of setup code, before which there is one more.
    let setup = usize::from(*image.get(0x1f1)?) + 1;
    let start = (setup * 512).checked_add(usize::try_from(word(0x248)?).ok()?)?;
    let end = start.checked_add(usize::try_from(word(0x24c)?).ok()?)?;
    image.get(start..end)
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn image(kernel: &[u8]) -> Vec<u8> {
        let packed = compress_to_vec(kernel, CompressionLevel::Fastest);
        let mut image = vec![0; 3 * 512 + 7];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248] = 7;
        // The payload ends with the unpacked size, which isn't part of the stream.
        let length = u32::try_from(packed.len() + 4).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend(packed);
        image.extend([1, 2, 3, 4]);
        image
    }

    #[test]
    fn a_kernel_is_unpacked() {
        let mut kernel = b"\x7fELF and so on".to_vec();
        kernel.extend(PVH_NOTE);
        kernel.extend([7; 5000]);
        assert_eq!(unpack(&image(&kernel)), Some(kernel));
    }

    #[test]
    fn anything_else_stays_as_it_is() {
        assert_eq!(unpack(b"\x7fELF"), None);
        assert_eq!(unpack(&image(b"\x7fELF without an entry point")), None);
        let mut cut = image(&PVH_NOTE);
        cut.truncate(1600);
        assert_eq!(unpack(&cut), None);
        let mut old = image(&PVH_NOTE);
        old[0x207] = 1;
        assert_eq!(unpack(&old), None);
    }
}
