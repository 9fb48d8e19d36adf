//! Properties of the rewritings, on archives made here member by member.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::members::{Member, MemberReader, MemberWriter};
use super::pax::Records;
use super::*;

/// A file of a made-up upper directory.
#[derive(Debug, Clone)]
enum Node {
    File { contents: Vec<u8>, mtime: &'static str, attribute: Vec<u8> },
    Directory { opaque: bool },
    Deleted,
    Symlink,
    Device,
}

fn member(path: &[u8], kind: EntryType, size: usize) -> Member {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(33);
    header.set_mtime(1_600_000_000);
    header.set_size(size as u64);
    let mut member = Member { header, pax: Records::default(), size: size as u64 };
    member.set_path(path);
    member
}

fn archive(nodes: &[(Vec<u8>, Node)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MemberWriter { inner: &mut bytes };
    for (path, node) in nodes {
        match node {
            Node::File { contents, mtime, attribute } => {
                let mut file = member(path, EntryType::Regular, contents.len());
                file.pax.set("mtime", *mtime);
                file.pax.set("SCHILY.xattr.user.test", attribute.clone());
                writer.put(file).unwrap();
                writer.inner.write_all(contents).unwrap();
                writer.pad(contents.len() as u64).unwrap();
            }
            Node::Directory { opaque } => {
                let mut directory = member(&[path.as_slice(), b"/"].concat(), EntryType::Directory, 0);
                directory.pax.set("SCHILY.xattr.trusted.overlay.origin", *b"machine-specific");
                if *opaque {
                    directory.pax.set("SCHILY.xattr.trusted.overlay.opaque", *b"y");
                }
                writer.put(directory).unwrap();
            }
            Node::Deleted => {
                let mut whiteout = Member::empty_file(path);
                whiteout.header.set_entry_type(EntryType::Char);
                whiteout.header.set_device_major(0).unwrap();
                whiteout.header.set_device_minor(0).unwrap();
                writer.put(whiteout).unwrap();
            }
            Node::Symlink => {
                let mut link = member(path, EntryType::Symlink, 0);
                link.pax.set("linkpath", *b"../some\xfewhere/else");
                writer.put(link).unwrap();
            }
            Node::Device => {
                let mut device = member(path, EntryType::Char, 0);
                device.header.set_device_major(5).unwrap();
                device.header.set_device_minor(1).unwrap();
                writer.put(device).unwrap();
            }
        }
    }
    writer.finish().unwrap();
    bytes
}

fn to_oci(bytes: &[u8]) -> (Vec<u8>, Census) {
    let mut out = Vec::new();
    let census = overlay_to_oci(bytes, &mut out).unwrap();
    (out, census)
}

fn to_overlay(bytes: &[u8]) -> (Vec<u8>, Census) {
    let mut out = Vec::new();
    let census = oci_to_overlay(bytes, &mut out).unwrap();
    (out, census)
}

fn paths(bytes: &[u8]) -> Vec<String> {
    let mut reader = MemberReader::new(bytes);
    let mut paths = Vec::new();
    while let Some(member) = reader.next().unwrap() {
        paths.push(String::from_utf8_lossy(&member.path()).into_owned());
        reader.copy_contents(member.size, &mut io::sink()).unwrap();
    }
    paths
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![b'a'..=b'z', Just(0xff_u8), Just(b'\n'), Just(b' '), Just(b'=')];
    prop_oneof![
        8 => proptest::collection::vec(byte.clone(), 1..20),
        1 => proptest::collection::vec(byte, 200..255),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(name(), 1..5).prop_map(|names| [b"./".to_vec(), names.join(&b'/')].concat())
}

fn node() -> impl Strategy<Value = Node> {
    let attribute = proptest::collection::vec(any::<u8>(), 0..40);
    let contents = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::collection::vec(any::<u8>(), 500..530),
        Just(vec![7; 300 << 10]),
    ];
    let mtime = prop_oneof![Just("1600000000.123456789"), Just("-2678400"), Just("1600000000")];
    prop_oneof![
        (contents, mtime, attribute).prop_map(|(contents, mtime, attribute)| Node::File {
            contents,
            mtime,
            attribute
        }),
        any::<bool>().prop_map(|opaque| Node::Directory { opaque }),
        Just(Node::Deleted),
        Just(Node::Symlink),
        Just(Node::Device),
    ]
}

proptest! {
    /// What is captured comes back: restoring a layer and capturing it again changes no byte of it.
    #[test]
    fn capture_and_restore_are_inverse(nodes in proptest::collection::vec((path(), node()), 0..12)) {
        let (layer, captured) = to_oci(&archive(&nodes));
        let (restored, seen) = to_overlay(&layer);
        prop_assert_eq!(captured, seen);
        let (again, _) = to_oci(&restored);
        prop_assert_eq!(layer, again);
    }

    /// Every member but the whiteouts keeps headers, contents, times and attributes.
    #[test]
    fn nothing_but_whiteouts_changes(nodes in proptest::collection::vec((path(), node()), 0..12)) {
        let plain: Vec<_> = nodes
            .into_iter()
            .filter(|(_, node)| !matches!(node, Node::Deleted | Node::Directory { .. }))
            .collect();
        let bytes = archive(&plain);
        prop_assert_eq!(&to_oci(&bytes).0, &bytes);
        prop_assert_eq!(&to_overlay(&bytes).0, &bytes);
    }

    /// Damaged archives end in an error, never in a panic or an endless loop.
    #[test]
    fn damage_is_an_error(cut in 0..4000usize, flip in 0..4000usize, value in any::<u8>()) {
        let mut bytes = archive(&[
            (b"./d".to_vec(), Node::Directory { opaque: true }),
            (b"./d/f".to_vec(), Node::File { contents: vec![1; 700], mtime: "1", attribute: vec![9] }),
            (b"./gone".to_vec(), Node::Deleted),
        ]);
        let position = flip % bytes.len();
        bytes[position] = value;
        bytes.truncate(bytes.len() - cut % bytes.len());
        drop(overlay_to_oci(bytes.as_slice(), io::sink()));
        drop(oci_to_overlay(bytes.as_slice(), io::sink()));
    }
}

#[test]
fn whiteouts_get_their_oci_names() {
    let bytes = archive(&[
        (b".".to_vec(), Node::Directory { opaque: false }),
        (b"./etc".to_vec(), Node::Directory { opaque: true }),
        (b"./etc/motd".to_vec(), Node::Deleted),
        (b"./gone".to_vec(), Node::Deleted),
    ]);
    let (layer, census) = to_oci(&bytes);
    assert_eq!(paths(&layer), ["./", "./etc/", "./etc/.wh..wh..opq", "./etc/.wh.motd", "./.wh.gone"]);
    assert_eq!(census, Census { members: 2, deleted: 2, replaced: 1 });
    let text = String::from_utf8_lossy(&layer).into_owned();
    assert!(!text.contains("trusted.overlay"), "overlay's own attributes are dropped");
}

#[test]
fn a_whiteout_of_a_very_long_name_survives() {
    let long = [b"./".to_vec(), vec![b'n'; 251]].concat();
    let (layer, _) = to_oci(&archive(&[(long.clone(), Node::Deleted)]));
    let (restored, _) = to_overlay(&layer);
    assert_eq!(paths(&restored), [String::from_utf8(long).unwrap()]);
}

#[test]
fn a_real_file_with_a_reserved_name_is_refused_by_name() {
    let bytes = archive(&[(
        b"./srv/.wh.notes".to_vec(),
        Node::File { contents: vec![], mtime: "1", attribute: vec![] },
    )]);
    let error = overlay_to_oci(bytes.as_slice(), io::sink()).unwrap_err();
    assert!(matches!(&error, LayerError::ReservedName(path) if path == "./srv/.wh.notes"), "{error}");
}

#[test]
fn a_cut_archive_is_named_as_such() {
    let bytes =
        archive(&[(b"./f".to_vec(), Node::File { contents: vec![1; 2000], mtime: "1", attribute: vec![] })]);
    for length in [0, 100, 512, 1024, 2000, bytes.len() - 1024] {
        let error = overlay_to_oci(&bytes[..length], io::sink()).unwrap_err();
        assert!(matches!(error, LayerError::CutShort), "{length} bytes: {error}");
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_sink() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bytes = archive(&[(b"./d".to_vec(), Node::Directory { opaque: false })]);
    let error = overlay_to_oci(bytes.as_slice(), Full).unwrap_err();
    assert!(matches!(error, LayerError::Write(e) if e.kind() == io::ErrorKind::StorageFull));
}

#[test]
fn the_source_is_read_to_its_end() {
    let mut bytes = archive(&[]);
    bytes.extend_from_slice(&[0; 8192]);
    let mut source = Cursor::new(bytes);
    overlay_to_oci(&mut source, io::sink()).unwrap();
    let mut rest = Vec::new();
    source.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 0, "a writer into a pipe would have been cut off");
}
