use std::io::Cursor;

use super::*;

/// A directory record with a system use area.
pub(in crate::boot::iso) fn record(
    name: &[u8],
    sector: u32,
    size: u32,
    flags: u8,
    system_use: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 33];
    bytes[2..6].copy_from_slice(&sector.to_le_bytes());
    bytes[10..14].copy_from_slice(&size.to_le_bytes());
    bytes[25] = flags;
    bytes[32] = name.len() as u8;
    bytes.extend_from_slice(name);
    if name.len().is_multiple_of(2) {
        bytes.push(0);
    }
    bytes.extend_from_slice(system_use);
    bytes[0] = bytes.len() as u8;
    bytes
}

/// An entry of a system use area.
fn susp(kind: &[u8; 2], body: &[u8]) -> Vec<u8> {
    [&kind[..], &[body.len() as u8 + 4, 1], body].concat()
}

fn continuation(sector: u32, size: u32) -> Vec<u8> {
    let mut body = [0; 24];
    body[0..4].copy_from_slice(&sector.to_le_bytes());
    body[16..20].copy_from_slice(&size.to_le_bytes());
    susp(b"CE", &body)
}

/// An ISO of 40 sectors whose root, at sector 20, has these records after its own two.
pub(in crate::boot::iso) fn image(
    rock_ridge: bool,
    records: &[Vec<u8>],
    sectors: &[(usize, &[u8])],
) -> Cursor<Vec<u8>> {
    let mut image = vec![0; 40 * 2048];
    image[16 * 2048] = 1;
    image[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
    image[16 * 2048 + 156..][..34].copy_from_slice(&record(&[0], 20, 2048, 2, &[]));
    let mark = if rock_ridge { susp(b"SP", &[0xbe, 0xef, 0]) } else { Vec::new() };
    let mut root = [record(&[0], 20, 2048, 2, &mark), record(&[1], 20, 2048, 2, &[])].concat();
    root.extend(records.concat());
    image[20 * 2048..][..root.len()].copy_from_slice(&root);
    for (sector, bytes) in sectors {
        image[sector * 2048..][..bytes.len()].copy_from_slice(bytes);
    }
    Cursor::new(image)
}

#[test]
fn plain_names_are_found_in_any_case() {
    let records = [record(b"BOOT.CAT;1", 30, 5, 0, &[]), record(b"LIVE", 31, 2048, 2, &[])];
    let folder = record(b"VMLINUZ.;1", 32, 6, 0, &[]);
    let mut tree =
        IsoTree::open(image(false, &records, &[(30, b"hello"), (31, &folder), (32, b"kernel")])).unwrap();
    let names: Vec<_> = tree.list_at("/").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["boot.cat", "live"]);
    assert_eq!(tree.read_at("/Boot.Cat", 3).unwrap().unwrap(), b"hel");
    assert_eq!(tree.read_at("/live/vmlinuz", 99).unwrap().unwrap(), b"kernel");
    assert_eq!(tree.read_at("/live/initrd", 99).unwrap(), None);
}

#[test]
fn rock_ridge_gives_names_and_links_also_from_continuation_areas() {
    let more = [susp(b"NM", b"\0.squashfs"), susp(b"ST", b"")].concat();
    let name = [susp(b"NM", b"\x01filesystem"), continuation(33, more.len() as u32)].concat();
    let link = susp(b"SL", b"\0\x04\0\0\x04live\x01\x03vml\0\x04inuz");
    let absolute = susp(b"SL", b"\0\x08\0\0\x03etc");
    let records = [
        record(b"FILESYST.SQU;1", 30, 4, 0, &name),
        record(b"LINK;1", 0, 0, 0, &[susp(b"NM", b"\0Link"), link].concat()),
        record(b"ROOT;1", 0, 0, 0, &[susp(b"NM", b"\0abs"), absolute].concat()),
    ];
    let mut tree = IsoTree::open(image(true, &records, &[(30, b"hsqs"), (33, &more)])).unwrap();
    assert_eq!(tree.read_at("filesystem.squashfs", 9).unwrap().unwrap(), b"hsqs");
    assert_eq!(tree.read_at("FILESYSTEM.squashfs", 9).unwrap(), None);
    for (name, target) in [("Link", "../live/vmlinuz"), ("abs", "/etc")] {
        let link = tree.find_link(name).unwrap().unwrap();
        assert_eq!((link.kind, tree.target(&link.node).unwrap()), (Kind::Link, target.to_owned()));
    }
}

#[test]
fn a_file_in_several_extents_is_one_file() {
    let records = [record(b"BIG;1", 30, 2048, 0x80, &[]), record(b"BIG;1", 35, 3, 0, &[])];
    let mut tree = IsoTree::open(image(false, &records, &[(30, &[7; 2048]), (35, b"end")])).unwrap();
    let big = tree.find("big").unwrap().unwrap();
    assert_eq!(tree.size(&big.node).unwrap(), 2051);
    assert_eq!(tree.read(&big.node, 9999).unwrap()[2045..], *b"\x07\x07\x07end");
    assert_eq!(tree.list_at("/").unwrap().len(), 1);
    // Records do not cross sectors.
    let mut folder = Vec::new();
    for _ in 0..2 * MAX_EXTENTS / 32 {
        folder.extend(record(b"X", 30, 1, 0x80, &[]).repeat(32));
        folder.resize(folder.len().next_multiple_of(2048), 0);
    }
    let records = [record(b"D", 21, folder.len() as u32, 2, &[])];
    let mut tree = IsoTree::open(image(false, &records, &[(21, &folder)])).unwrap();
    let many = tree.find("d/x").unwrap().unwrap();
    assert_eq!(tree.size(&many.node).unwrap(), MAX_EXTENTS as u64);
}

#[test]
fn hostile_records_end() {
    // A folder that holds itself, a continuation that continues itself, a file beyond the image's end.
    let looping = [susp(b"NM", b"\0x"), continuation(33, 2048)].concat();
    let again = continuation(33, 2048);
    let records = [
        record(b"SELF", 20, 2048, 2, &susp(b"NM", b"\0self")),
        record(b"LOOP;1", 30, 4, 0, &looping),
        record(b"FAR;1", u32::MAX, u32::MAX, 0, &susp(b"NM", b"\0far")),
        record(b"WIDE", 21, u32::MAX, 2, &susp(b"NM", b"\0wide")),
    ];
    let mut tree = IsoTree::open(image(true, &records, &[(33, &again)])).unwrap();
    assert_eq!(tree.find("self/self/self/x").unwrap().unwrap().name, "x");
    assert_eq!(tree.read_at("far", 1 << 30).unwrap().unwrap(), b"");
    assert!(tree.list_at("wide").is_ok());
    assert!(matches!(IsoTree::open(Cursor::new(vec![0; 99])), Err(NotAnIso::NoVolume)));
}

#[test]
fn names_and_links_that_never_end_are_cut() {
    let (mut name, mut link) =
        (susp(b"NM", &[b'\x01'; 200]), susp(b"SL", &[b"\0\0\xc8", &[b'l'; 200][..]].concat()));
    for (sector, area) in [(33, &mut name), (34, &mut link)] {
        area.extend(area.repeat(8));
        area.extend(continuation(sector, 2048));
    }
    let records = [
        record(b"NAME;1", 30, 4, 0, &continuation(33, 2048)),
        record(b"LINK;1", 30, 4, 0, &[susp(b"NM", b"\0link"), continuation(34, 2048)].concat()),
    ];
    let mut tree = IsoTree::open(image(true, &records, &[(33, &name), (34, &link)])).unwrap();
    let found = tree.list_at("/").unwrap();
    assert_eq!((found[0].name.len(), tree.target(&found[1].node).unwrap().len()), (255, 4096));
}

#[test]
fn folders_that_keep_a_reader_busy_end() {
    // Twenty chains of 32 continuations of 2 KiB each: 1.25 MiB a time.
    let again = continuation(33, 2048);
    let records = vec![record(b"X", 30, 4, 0, &again); 20];
    let mut tree = IsoTree::open(image(true, &records, &[(33, &again)])).unwrap();
    let mut room = 5000;
    tree.rock_ridge(&again, &mut RockRidge::default(), &mut room).unwrap();
    assert_eq!(room, 5000 - 2 * 2048);
    tree.budget = ListingBudget(2 << 20);
    assert!(tree.list_at("/").is_ok());
    assert!(tree.list_at("/").unwrap_err().to_string().contains("too large"));
}

#[test]
fn any_bytes_in_a_folder_are_read_without_harm() {
    use proptest::prelude::*;
    proptest!(ProptestConfig::with_cases(500), |(bytes: Vec<u8>, rock_ridge: bool)| {
        let folder = record(b"X", 30, 2048, 2, &susp(b"NM", b"\0x"));
        let bytes = &bytes[..bytes.len().min(2048)];
        let mut tree = IsoTree::open(image(rock_ridge, &[folder], &[(30, bytes)])).unwrap();
        prop_assert!(tree.list_at("/x").is_ok());
    });
}
