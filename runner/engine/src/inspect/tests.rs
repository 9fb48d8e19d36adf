use std::io::Cursor;

use super::*;

const GZIP: &[u8] = include_bytes!("fixtures/gzip.squashfs");
const XZ: &[u8] = include_bytes!("fixtures/xz.squashfs");
const LZ4: &[u8] = include_bytes!("fixtures/lz4.squashfs");
const ZSTD: &[u8] = include_bytes!("fixtures/zstd.squashfs");

fn open(bytes: &[u8]) -> Squashfs<Cursor<Vec<u8>>> {
    Squashfs::open(Cursor::new(bytes.to_vec())).unwrap()
}

#[test]
fn squashfs_is_read_in_every_compression() {
    for image in [GZIP, XZ, LZ4, ZSTD] {
        let mut squashfs = open(image);
        assert_eq!(squashfs.complaint(), None);
        let text = squashfs.read_at("/etc/os-release", 9999).unwrap().unwrap();
        assert!(text.starts_with(b"ID=demo\n"), "{text:?}");
        let blocks = squashfs.find("/blocks").unwrap().unwrap();
        assert_eq!(squashfs.size(&blocks.node).unwrap(), 13_000);
        let whole: Vec<u8> = b"a line of text\n".iter().copied().cycle().take(13_000).collect();
        assert_eq!(squashfs.read(&blocks.node, usize::MAX).unwrap(), whole);
        assert_eq!(squashfs.read(&blocks.node, 5000).unwrap(), whole[..5000]);
        let hole = squashfs.read_at("/hole", usize::MAX).unwrap().unwrap();
        assert_eq!((hole.len(), &hole[8190..]), (8195, &b"\0\0end"[..]));
        assert_eq!(squashfs.list_at("/many").unwrap().len(), 600);
        assert_eq!(squashfs.read_at("/many/file-1599", 99).unwrap().unwrap(), b"1599\n");
        assert_eq!(squashfs.find("/many/file-1600").unwrap(), None);
    }
}

#[test]
fn a_file_system_that_is_cut_off_says_so_and_gives_what_is_left() {
    let mut cut = open(&ZSTD[..ZSTD.len() / 2]);
    assert!(cut.complaint().unwrap().starts_with("is cut off: its superblock promises "));
    assert!(cut.read_at("/etc/os-release", 99).is_err());
    assert!(Squashfs::open(Cursor::new(ZSTD[..50].to_vec())).is_err());
    assert!(Squashfs::open(Cursor::new(vec![0; 4096])).is_err());
}

#[test]
fn folders_are_not_read_for_ever() {
    let mut squashfs = open(ZSTD);
    assert!(squashfs.list_at("/many").is_ok());
    while squashfs.budget.spend(1 << 20).is_ok() {}
    assert!(squashfs.list_at("/many").unwrap_err().to_string().contains("too large"));
}

#[test]
fn damage_anywhere_is_an_error_or_nothing_but_no_harm() {
    for image in [GZIP, XZ, LZ4, ZSTD] {
        for place in (0..image.len()).step_by(7).chain(0..96) {
            let mut damaged = image.to_vec();
            damaged[place] ^= 0xff;
            let Ok(mut squashfs) = Squashfs::open(Cursor::new(damaged)) else { continue };
            for path in ["/etc/os-release", "/blocks", "/many/file-1300", "/hole"] {
                drop(squashfs.read_at(path, 1 << 20));
            }
        }
    }
}

/// An ISO with one file, `a/squash.img` or the like, at sector 21.
fn iso(folder: &[u8], name: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 24 * 2048];
    let record = |name: &[u8], sector: u32, size: usize, folder: bool| {
        let mut record = vec![0; 33];
        record[2..6].copy_from_slice(&sector.to_le_bytes());
        record[10..14].copy_from_slice(&(size as u32).to_le_bytes());
        record[25] = if folder { 2 } else { 0 };
        record[32] = name.len() as u8;
        record.extend(name);
        record.resize(record.len().next_multiple_of(2), 0);
        record[0] = record.len() as u8;
        record
    };
    for (sector, kind) in [(16, 1), (17, 255)] {
        image[sector * 2048] = kind;
        image[sector * 2048 + 1..][..5].copy_from_slice(b"CD001");
    }
    let sectors = 24 + bytes.len().div_ceil(2048) as u32;
    image[16 * 2048 + 80..][..4].copy_from_slice(&sectors.to_le_bytes());
    image[16 * 2048 + 156..][..34].copy_from_slice(&record(&[0], 20, 2048, true));
    let top = [record(&[0], 20, 2048, true), record(folder, 22, 2048, true)].concat();
    image[20 * 2048..][..top.len()].copy_from_slice(&top);
    let inner = record(name, 24, bytes.len(), false);
    image[22 * 2048..][..inner.len()].copy_from_slice(&inner);
    image.extend(bytes);
    image.resize(sectors as usize * 2048, 0);
    image
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn inspects_a_live_system_and_extracts_files() {
    let image = file(&iso(b"LIVE", b"FILESYSTEM.SQUASHFS;1", XZ));
    let inspection = inspect(image.path()).unwrap();
    assert_eq!(inspection.problems, Vec::<String>::new());
    let system = inspection.system.unwrap();
    assert_eq!((system.name.as_deref(), system.incomplete), (Some("Demo 1"), false));
    assert_eq!(system.images, ["/live/filesystem.squashfs"]);
    let mut bytes = Vec::new();
    extract(image.path(), "/live/filesystem.squashfs").unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == XZ);
    let missing = extract(image.path(), "/live/vmlinuz").map(drop).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("/live/vmlinuz"));
}

#[test]
fn a_damaged_live_system_is_a_problem_and_no_error() {
    let mut superblock = XZ.to_vec();
    superblock[12] = 3;
    let mut tables = XZ.to_vec();
    tables[XZ.len() / 2..].fill(0x55);
    for (damaged, words) in [(superblock, "superblock is damaged"), (tables, "cannot be read")] {
        let inspection = inspect(file(&iso(b"LIVE", b"FILESYSTEM.SQUASHFS;1", &damaged)).path()).unwrap();
        assert_eq!(inspection.system, None);
        assert!(
            inspection.problems.iter().any(|problem| problem.contains(words)),
            "{:?}",
            inspection.problems
        );
    }
    let cut = iso(b"CASPER", b"FILESYSTEM.SQUASHFS;1", XZ);
    let inspection = inspect(file(&cut[..cut.len() - 6144]).path()).unwrap();
    assert!(inspection.system.is_none() && inspection.problems.len() > 1, "{inspection:?}");
    assert!(
        inspection.problems[0].starts_with("the ISO is cut off: it promises "),
        "{:?}",
        inspection.problems
    );
}

#[test]
fn what_is_no_iso_is_an_error() {
    assert!(matches!(inspect(file(b"#!/bin/sh\n").path()), Err(NotAnIso::NoVolume)));
    assert!(matches!(inspect(Path::new("/nonexistent/x.iso")), Err(NotAnIso::Read(_))));
    assert_eq!(extract(file(b"x").path(), "/x").map(drop).unwrap_err().kind(), io::ErrorKind::InvalidData);
}
