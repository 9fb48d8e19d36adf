//! Where the live system's root file system lies on an ISO.

use std::io::{self, Read, Seek};

use super::files::{Files, Kind};
use super::tree::{IsoNode, IsoTree};

/// Folders that live systems keep their root file system in; the first that has one counts.
const FOLDERS: [&str; 10] = [
    "/live",
    "/casper",
    "/LiveOS",
    "/arch/x86_64",
    "/arch/i686",
    "/sysresccd/x86_64",
    "/antiX",
    "/porteus/base",
    "/boot",
    "/",
];
/// Arguments of a kernel that name the folder, and what is added to their value.
const ARGUMENTS: [(&str, &str); 3] =
    [("live-media-path=", ""), ("archisobasedir=", "/x86_64"), ("rd.live.dir=", "")];

/// A file on the ISO that holds a root file system, or a layer of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootImage {
    /// Its path.
    pub path: String,
    /// Leads to it.
    pub node: IsoNode,
}

/// What the first bytes of a file say it is.
enum Format {
    Squashfs,
    /// A file system that is not read here.
    Other(&'static str),
}

/// The files that make up the root file system, the uppermost first; empty where the ISO has none that can be
/// read.
pub(super) fn find<R: Read + Seek + Clone>(
    tree: &mut IsoTree<R>,
    arguments: &str,
    problems: &mut Vec<String>,
) -> Vec<RootImage> {
    let named = arguments.split_whitespace().filter_map(|word| {
        ARGUMENTS
            .iter()
            .find_map(|(key, end)| Some(format!("/{}{end}", word.strip_prefix(key)?.trim_matches('/'))))
    });
    let folders: Vec<String> = named.chain(FOLDERS.map(str::to_owned)).collect();
    for folder in &folders {
        match in_folder(tree, folder, problems) {
            Ok(images) if images.is_empty() => {}
            Ok(images) => return stack(images, arguments),
            Err(error) => problems.push(format!("{folder} cannot be read: {error}")),
        }
    }
    Vec::new()
}

fn in_folder<R: Read + Seek + Clone>(
    tree: &mut IsoTree<R>,
    folder: &str,
    problems: &mut Vec<String>,
) -> io::Result<Vec<RootImage>> {
    let mut images = Vec::new();
    for entry in tree.list_at(folder)? {
        let ends = [".squashfs", ".sfs", ".img", ".erofs", ".xzm"];
        let named = entry.name == "linuxfs" || ends.iter().any(|end| entry.name.ends_with(end));
        if entry.kind != Kind::File || !named {
            continue;
        }
        let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
        match format(&tree.read(&entry.node, 2048)?) {
            Some(Format::Squashfs) => images.push(RootImage { path, node: entry.node }),
            Some(Format::Other(name)) => {
                problems.push(format!("{path} is {name}, which cannot be looked into"))
            }
            // Root file systems only: initrds and boot images end in `.img` too.
            None if path.ends_with("squashfs") || path.ends_with(".sfs") => {
                problems.push(format!("{path} is not a squashfs file system"));
            }
            None => {}
        }
    }
    Ok(images)
}

fn format(head: &[u8]) -> Option<Format> {
    match head {
        head if head.starts_with(b"hsqs") => Some(Format::Squashfs),
        head if head.get(1024..1028) == Some(&[0xe2, 0xe1, 0xf5, 0xe0]) => Some(Format::Other("EROFS")),
        head if head.get(1080..1082) == Some(&[0x53, 0xef]) => Some(Format::Other("ext4")),
        _ => None,
    }
}

/// Those of a folder's file systems that are stacked, the uppermost first.
fn stack(mut images: Vec<RootImage>, arguments: &str) -> Vec<RootImage> {
    let stem = |image: &RootImage| {
        let name = image.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
    };
    images.sort_by_key(stem);
    // casper: `a.b.c.squashfs` lies on `a.b.squashfs` and `a.squashfs`.
    let asked = arguments.split_whitespace().find_map(|word| word.strip_prefix("layerfs-path="));
    let asked = asked.map(|path| path.rsplit_once('.').map_or(path, |(stem, _)| stem).to_owned());
    let live = images.iter().map(stem).filter(|stem| stem.ends_with(".live")).max_by_key(String::len);
    if let Some(top) = asked.or(live) {
        let mut layers: Vec<_> = images
            .into_iter()
            .filter(|image| top == stem(image) || top.starts_with(&format!("{}.", stem(image))))
            .collect();
        layers.sort_by_key(|image| std::cmp::Reverse(stem(image).len()));
        return layers;
    }
    // live-boot: all of the folder, by name, the last on top; but `filesystem` is the whole system where it is.
    let whole = images.iter().position(|image| stem(image) == "filesystem");
    if let Some(whole) = whole.filter(|_| images[0].path.starts_with("/casper/")) {
        return vec![images.swap_remove(whole)];
    }
    images.reverse();
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacked(paths: &[&str], arguments: &str) -> Vec<String> {
        let image = |path: &&str| RootImage { path: (*path).to_owned(), node: IsoNode::default() };
        stack(paths.iter().map(image).collect(), arguments).into_iter().map(|image| image.path).collect()
    }

    #[test]
    fn layers_are_stacked_as_the_live_system_stacks_them() {
        assert_eq!(stacked(&["/live/filesystem.squashfs"], ""), ["/live/filesystem.squashfs"]);
        assert_eq!(
            stacked(&["/live/b.squashfs", "/live/a.squashfs"], ""),
            ["/live/b.squashfs", "/live/a.squashfs"]
        );
        let casper = [
            "/casper/minimal.squashfs",
            "/casper/minimal.de.squashfs",
            "/casper/minimal.standard.squashfs",
            "/casper/minimal.standard.live.squashfs",
        ];
        let all = [
            "/casper/minimal.standard.live.squashfs",
            "/casper/minimal.standard.squashfs",
            "/casper/minimal.squashfs",
        ];
        assert_eq!(stacked(&casper, "boot=casper"), all);
        assert_eq!(
            stacked(&casper, "layerfs-path=minimal.de.squashfs"),
            ["/casper/minimal.de.squashfs", "/casper/minimal.squashfs"]
        );
        let old = ["/casper/filesystem.squashfs", "/casper/installer.squashfs"];
        assert_eq!(stacked(&old, ""), ["/casper/filesystem.squashfs"]);
    }

    #[test]
    fn formats_are_told_by_their_marks() {
        assert!(matches!(format(b"hsqs rest"), Some(Format::Squashfs)));
        let mut erofs = vec![0; 2048];
        erofs[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        assert!(matches!(format(&erofs), Some(Format::Other("EROFS"))));
        assert!(format(b"").is_none() && format(&[0; 2048]).is_none());
    }
}
