//! EFI programs: what machine they are for, and who has signed them. As in Microsoft's "PE Format" and
//! "Windows Authenticode Portable Executable Signature Format"; the signature is a PKCS #7 SignedData (RFC 2315).
//!
//! Says who claims to have signed, for expectations: nothing is verified here, the firmware does that.

use serde::Serialize;

use super::partitions::u32_at;

/// An EFI program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EfiProgram {
    /// Path on the EFI system partition.
    pub path: String,
    /// `x86-64`, `i386`, `arm64` …, or the number as `0x1234`.
    pub machine: String,
    /// Common names of those who have signed it; empty where nobody has, `unknown` for one that cannot be told.
    pub signers: Vec<String>,
    /// Whether Linux is part of it: a unified kernel image, as the UAPI group's specification has it.
    pub holds_kernel: bool,
}

/// Place of the certificate table among the data directories.
const SECURITY: usize = 4;
/// Kind of a certificate table's entry that holds PKCS #7.
const PKCS_7: u16 = 2;

impl EfiProgram {
    /// Reads a file's bytes; `None` where they are no program for EFI. Where they end before the signatures, who has
    /// signed is unknown.
    pub fn parse(path: &str, bytes: &[u8]) -> Option<Self> {
        let header = header(bytes)?;
        let machine = match word(bytes, header + 4)? {
            0x014c => "i386".to_owned(),
            0x01c2 => "arm".to_owned(),
            0x5064 => "riscv64".to_owned(),
            0x6264 => "loongarch64".to_owned(),
            0x8664 => "x86-64".to_owned(),
            0xaa64 => "arm64".to_owned(),
            other => format!("{other:#06x}"),
        };
        let signers = match certificates(bytes).filter(|(_, size)| *size > 0) {
            None => Vec::new(),
            Some((start, size)) => match bytes.get(start..start.saturating_add(size)) {
                Some(table) => signers(table),
                None => vec!["unknown".to_owned()],
            },
        };
        let holds_kernel = has_section(bytes, header, b".linux\0\0").unwrap_or(false);
        Some(Self { path: path.to_owned(), machine, signers, holds_kernel })
    }

    /// Whether anybody has signed it.
    pub fn is_signed(&self) -> bool {
        !self.signers.is_empty()
    }

    /// Whether PCs that come with Microsoft's keys start it under Secure Boot, as far as the signers' names tell.
    pub fn is_signed_by_microsoft(&self) -> bool {
        self.signers.iter().any(|signer| signer.starts_with("Microsoft "))
    }
}

/// Whether a program whose beginning this is carries signatures.
pub(super) fn has_signature(head: &[u8]) -> bool {
    certificates(head).is_some_and(|(_, size)| size > 0)
}

/// Place of the header that the old one for DOS points to.
fn header(bytes: &[u8]) -> Option<usize> {
    let header = long(bytes, 0x3c).filter(|_| bytes.starts_with(b"MZ"))?;
    (bytes.get(header..header.checked_add(4)?)? == b"PE\0\0").then_some(header)
}

/// Place and size of the certificate table.
fn certificates(bytes: &[u8]) -> Option<(usize, usize)> {
    let header = header(bytes)?;
    let directories = header + 24 + if word(bytes, header + 24)? == 0x020b { 112 } else { 96 };
    let directory = directories + SECURITY * 8;
    Some((long(bytes, directory)?, long(bytes, directory + 4)?))
}

/// Whether a section has that name; `None` where the table of sections is cut off.
fn has_section(bytes: &[u8], header: usize, name: &[u8; 8]) -> Option<bool> {
    let (count, optional) = (word(bytes, header + 6)?, word(bytes, header + 20)?);
    let table = bytes.get(header + 24 + usize::from(optional)..)?;
    let mut names = table.chunks_exact(40).take(count.into()).map(|section| &section[..8]);
    Some(names.any(|known| known == name))
}

fn word(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(place)?, *bytes.get(place + 1)?]))
}

fn long(bytes: &[u8], place: usize) -> Option<usize> {
    bytes.get(place..place.checked_add(4)?).map(|bytes| u32_at(bytes, 0) as usize)
}

/// Who has signed, by the entries of a certificate table.
fn signers(mut table: &[u8]) -> Vec<String> {
    let mut signers = Vec::new();
    while table.len() > 8 {
        let length = u32_at(table, 0) as usize;
        let Some(entry) = table.get(8..length).filter(|entry| !entry.is_empty()) else { break };
        if u16::from_le_bytes([table[6], table[7]]) == PKCS_7 {
            signers.push(signer(entry).unwrap_or_else(|| "unknown".to_owned()));
        }
        // Entries begin at multiples of 8 bytes.
        table = table.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    signers
}

/// The subject of the certificate that a SignedData's first signer names by issuer and serial number.
fn signer(pkcs7: &[u8]) -> Option<String> {
    let (_, content_info, _) = tlv(pkcs7)?;
    let content = children(content_info).into_iter().find(|(tag, _)| *tag == 0xa0)?.1;
    let signed_data = children(tlv(content)?.1);
    let certificates = signed_data.iter().find(|(tag, _)| *tag == 0xa0)?.1;
    // The last set holds the signers; the first one named the digests.
    let infos = signed_data.iter().rev().find(|(tag, _)| *tag == 0x31)?.1;
    let info = children(tlv(infos)?.1);
    let wanted = children(info.get(1)?.1);
    let (issuer, serial) = (wanted.first()?.1, wanted.get(1)?.1);
    children(certificates).into_iter().find_map(|(_, certificate)| {
        let mut fields = children(tlv(certificate)?.1);
        // The version is there or not.
        fields.retain(|(tag, _)| *tag != 0xa0);
        let fits = fields.first()?.1 == serial && fields.get(2)?.1 == issuer;
        if fits { common_name(fields.get(4)?.1) } else { None }
    })
}

/// The common name of a distinguished name, or its organisation.
fn common_name(name: &[u8]) -> Option<String> {
    let attribute = |oid: &[u8]| {
        children(name).into_iter().find_map(|(_, set)| {
            let pair = children(tlv(set)?.1);
            if pair.first()?.1 != oid {
                return None;
            }
            Some(String::from_utf8_lossy(pair.get(1)?.1).into_owned())
        })
    };
    attribute(&[0x55, 4, 3]).or_else(|| attribute(&[0x55, 4, 10]))
}

/// All values in a row, with their tags.
fn children(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((tag, value, rest)) = tlv(bytes) {
        found.push((tag, value));
        bytes = rest;
    }
    found
}

/// The first value of DER bytes: tag, value, what follows. Tags above 30 do not occur here.
fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, first, rest) = (*bytes.first()?, *bytes.get(1)?, bytes.get(2..)?);
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let count = usize::from(first & 0x0f);
            let length = rest.get(..count)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, &rest[count..])
        }
        _ => return None,
    };
    Some((tag, rest.get(..length)?, &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let mut bytes = vec![tag, 0x82, (body.len() >> 8) as u8, body.len() as u8];
        bytes.extend(body);
        bytes
    }

    fn name(text: &str) -> Vec<u8> {
        let pair = der(0x30, &[&der(0x06, &[&[0x55, 4, 3]]), &der(0x0c, &[text.as_bytes()])]);
        der(0x30, &[&der(0x31, &[&pair])])
    }

    fn certificate(serial: u8, issuer: &str, subject: &str) -> Vec<u8> {
        let parts = [
            der(0xa0, &[&[2, 1, 2]]),
            der(0x02, &[&[serial]]),
            der(0x30, &[]),
            name(issuer),
            der(0x30, &[]),
            name(subject),
        ];
        der(0x30, &[&der(0x30, &[&parts.concat()])])
    }

    /// A program with a certificate table that holds this.
    fn program(pkcs7: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x86].copy_from_slice(b"PE\0\0\x64\x86");
        bytes[0x98..0x9a].copy_from_slice(&[0x0b, 0x02]);
        let directory = 0x98 + 112 + 32;
        bytes[directory..directory + 4].copy_from_slice(&512_u32.to_le_bytes());
        bytes[directory + 4..directory + 8].copy_from_slice(&(pkcs7.len() as u32 + 8).to_le_bytes());
        bytes.extend((pkcs7.len() as u32 + 8).to_le_bytes());
        bytes.extend([0, 2, 2, 0]);
        bytes.extend(pkcs7);
        bytes
    }

    fn signed(serial: u8) -> Vec<u8> {
        let chain = [
            certificate(1, "Microsoft Root", "Microsoft Corporation UEFI CA 2011"),
            certificate(7, "Microsoft Corporation UEFI CA 2011", "Microsoft Windows UEFI Driver Publisher"),
        ];
        let issuer = name("Microsoft Corporation UEFI CA 2011");
        let info =
            der(0x30, &[&[2, 1, 1], &der(0x30, &[&issuer, &der(0x02, &[&[serial]])]), &der(0x30, &[])]);
        let data = [
            vec![2, 1, 1],
            der(0x31, &[&der(0x30, &[])]),
            der(0x30, &[]),
            der(0xa0, &[&chain.concat()]),
            der(0x31, &[&info]),
        ];
        let oid = der(0x06, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]]);
        der(0x30, &[&oid, &der(0xa0, &[&der(0x30, &[&data.concat()])])])
    }

    #[test]
    fn says_machine_and_signer() {
        let shim = EfiProgram::parse("EFI/BOOT/BOOTX64.EFI", &program(&signed(7))).unwrap();
        assert_eq!((shim.machine.as_str(), shim.is_signed_by_microsoft()), ("x86-64", true));
        assert_eq!(shim.signers, ["Microsoft Windows UEFI Driver Publisher"]);
        assert!(has_signature(&program(&signed(7))[..512]) && !has_signature(&[0; 512]));
        let stranger = EfiProgram::parse("x", &program(&signed(9))).unwrap();
        assert_eq!((stranger.signers.as_slice(), stranger.is_signed()), (&["unknown".to_owned()][..], true));
    }

    #[test]
    fn a_unified_kernel_image_holds_a_kernel() {
        let mut bytes = program(&signed(7));
        assert!(!EfiProgram::parse("x", &bytes).unwrap().holds_kernel);
        bytes[0x86] = 2;
        bytes[0x94] = 136;
        for (place, name) in [(0x80 + 24 + 136, b".osrel"), (0x80 + 24 + 136 + 40, b".linux")] {
            bytes[place..place + 6].copy_from_slice(name);
        }
        assert!(EfiProgram::parse("x", &bytes).unwrap().holds_kernel);
        bytes[0x86] = 1;
        assert!(!EfiProgram::parse("x", &bytes).unwrap().holds_kernel);
    }

    #[test]
    fn unsigned_damaged_and_other_files() {
        let mut bytes = program(&signed(7));
        bytes.truncate(512);
        let cut = EfiProgram::parse("x", &bytes).unwrap();
        assert_eq!(cut.signers, ["unknown"], "the beginning of a large program");
        bytes[0x98 + 112 + 32..][..8].fill(0);
        let unsigned = EfiProgram::parse("x", &bytes).unwrap();
        assert!(!unsigned.is_signed() && !unsigned.is_signed_by_microsoft());
        for other in [&b"MZ"[..], b"", b"#!/bin/sh", &[0xff; 100]] {
            assert_eq!(EfiProgram::parse("x", other), None);
        }
        let whole = program(&signed(7));
        for end in 0..whole.len() {
            EfiProgram::parse("x", &whole[..end]);
        }
        for place in 0x80..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] = 0xff;
            EfiProgram::parse("x", &damaged);
        }
    }
}
