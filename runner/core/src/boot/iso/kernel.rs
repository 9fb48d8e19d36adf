//! Kernels and initrds as files of an ISO. The header of a kernel is described in Linux's
//! `Documentation/arch/x86/boot.rst`.

use serde::Serialize;

use super::partitions::u32_at;
use super::pe::has_signature;

/// Bytes of a kernel that hold its header and its version.
pub(super) const KERNEL_HEAD: usize = 64 << 10;

/// First version of the boot protocol that says where the packed kernel lies: that of Linux 2.6.26, of 2008.
const WITH_PAYLOAD: u16 = 0x208;

/// A Linux kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its version, as `uname -r` says it; `None` where the file is no kernel for x86.
    pub release: Option<String>,
    /// The file is shorter than its header says.
    pub cut_off: bool,
    /// It carries a signature for Secure Boot.
    pub signed: bool,
}

/// An initial RAM file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initrd {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// How it begins: `cpio`, or a compression; `None` for something else.
    pub format: Option<String>,
}

impl Kernel {
    /// Reads the beginning of a file.
    pub(super) fn parse(path: &str, size: u64, head: &[u8]) -> Self {
        let header = head.get(0x202..0x206) == Some(b"HdrS");
        let mut kernel =
            Self { path: path.to_owned(), size, release: None, cut_off: false, signed: has_signature(head) };
        let Some(payload) = head.get(0x248..0x250).filter(|_| header) else { return kernel };
        let (offset, length) = (u64::from(u32_at(payload, 0)), u64::from(u32_at(payload, 4)));
        let protocol = u16::from_le_bytes([head[0x206], head[0x207]]);
        // Programs that only pose as kernels, as iPXE and memory tests do, hold no packed kernel.
        if protocol < WITH_PAYLOAD || length == 0 {
            return kernel;
        }
        // Zero stands for four, from the time before the field was there.
        let sectors = if head[0x1f1] == 0 { 4 } else { u64::from(head[0x1f1]) };
        kernel.cut_off = size < (sectors + 1) * 512 + offset + length;
        let version = usize::from(u16::from_le_bytes([head[0x20e], head[0x20f]])) + 0x200;
        let text = head.get(version..).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0 || *byte == b' ').unwrap_or(0);
        kernel.release =
            Some(String::from_utf8_lossy(&text[..end]).into_owned()).filter(|text| !text.is_empty());
        kernel
    }
}

impl Initrd {
    /// Reads the beginning of a file.
    pub(super) fn parse(path: &str, size: u64, head: &[u8]) -> Self {
        let formats: [(&[u8], &str); 8] = [
            (b"070701", "cpio"),
            (b"070702", "cpio"),
            (&[0x1f, 0x8b], "gzip"),
            (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
            (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
            (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
            (b"BZh", "bzip2"),
            (&[0x5d, 0, 0], "lzma"),
        ];
        let format =
            formats.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| (*name).to_owned());
        Self { path: path.to_owned(), size, format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of 4 setup sectors, whose payload of 1,344 bytes begins 256 bytes after them.
    fn head() -> Vec<u8> {
        let mut head = vec![0; 5 * 512 + 1600];
        head[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        head[0x249] = 1;
        head[0x24c..0x24e].copy_from_slice(&1344_u16.to_le_bytes());
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
        head[0x500..0x520].copy_from_slice(b"6.12.48+deb13-amd64 (debian-ker\0");
        head
    }

    #[test]
    fn a_kernel_says_its_version_and_length() {
        let whole = Kernel::parse("/live/vmlinuz", 4160, &head());
        assert_eq!((whole.release.as_deref(), whole.cut_off), (Some("6.12.48+deb13-amd64"), false));
        assert!(Kernel::parse("/live/vmlinuz", 4159, &head()).cut_off);
        let mut ipxe = head();
        ipxe[0x206] = 7;
        let ipxe = Kernel::parse("/ipxe.krn", 4159, &ipxe);
        assert_eq!((ipxe.release, ipxe.cut_off), (None, false), "it only poses as a kernel");
        let other = Kernel::parse("/x", 3, b"abc");
        assert_eq!((other.release, other.cut_off), (None, false));
        let mut far = head();
        far[0x20e..0x210].fill(0xff);
        assert_eq!(Kernel::parse("/x", 9999, &far).release, None);
    }

    #[test]
    fn an_initrd_says_its_format() {
        assert_eq!(Initrd::parse("/i", 9, b"070701000").format.as_deref(), Some("cpio"));
        assert_eq!(Initrd::parse("/i", 9, &[0x28, 0xb5, 0x2f, 0xfd, 0]).format.as_deref(), Some("zstd"));
        assert_eq!(Initrd::parse("/i", 0, b"").format, None);
    }
}
