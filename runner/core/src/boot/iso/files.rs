//! One way to look into every file system that an ISO holds: ISO 9660, FAT, squashfs. A file system says
//! what a folder holds; finding paths and following links is done once, here.

use std::collections::VecDeque;
use std::io;

/// Links followed on the way to one file, and bytes of a path; Linux's own limits.
const MAX_LINKS: usize = 40;
const MAX_PATH: usize = 4096;
/// Folders looked through on the way to one file, those of links too.
const MAX_PARTS: usize = 256;
/// Bytes of folders read of one file system: a folder is read again for every file that is looked for in it.
const MAX_LISTED: usize = 512 << 20;

/// A tree of files, read piece by piece.
pub trait Files {
    /// What leads to a file or folder again.
    type Node: Clone;

    /// The top folder.
    fn root(&mut self) -> io::Result<Self::Node>;
    /// What a folder holds, without `.` and `..`.
    fn list(&mut self, folder: &Self::Node) -> io::Result<Vec<Entry<Self::Node>>>;
    /// Where a symbolic link leads, as it is written.
    fn target(&mut self, link: &Self::Node) -> io::Result<String>;
    /// Bytes of a file.
    fn size(&mut self, file: &Self::Node) -> io::Result<u64>;
    /// The beginning of a file, at most so many bytes.
    fn read(&mut self, file: &Self::Node, most: usize) -> io::Result<Vec<u8>>;

    /// Whether two names are the same to this file system.
    fn same(&self, a: &str, b: &str) -> bool {
        a == b
    }

    /// What lies at a path from the top folder; links are followed, also at its end. `None` where
    /// nothing does.
    fn find(&mut self, path: &str) -> io::Result<Option<Entry<Self::Node>>> {
        walk(self, path, true)
    }

    /// As [`Files::find`], but a link at the end of the path is found itself.
    fn find_link(&mut self, path: &str) -> io::Result<Option<Entry<Self::Node>>> {
        walk(self, path, false)
    }

    /// The beginning of the file at a path, at most so many bytes; `None` where there is no file.
    fn read_at(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        match self.find(path)? {
            Some(entry) if entry.kind == Kind::File => self.read(&entry.node, most).map(Some),
            _ => Ok(None),
        }
    }

    /// What the folder at a path holds; nothing where there is no folder.
    fn list_at(&mut self, path: &str) -> io::Result<Vec<Entry<Self::Node>>> {
        match self.find(path)? {
            Some(entry) if entry.kind == Kind::Folder => self.list(&entry.node),
            _ => Ok(Vec::new()),
        }
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<N> {
    /// Its name, without folders.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Leads to it.
    pub node: N,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// Bytes of folders that may still be read of a file system. One that is made to keep its reader busy ends here.
#[derive(Debug, Clone)]
pub struct ListingBudget(pub(super) usize);

impl Default for ListingBudget {
    fn default() -> Self {
        Self(MAX_LISTED)
    }
}

impl ListingBudget {
    /// Takes so many bytes; an error where they are not there any more.
    pub fn spend(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.map(drop).ok_or_else(|| io::Error::other("its folders are too large to be looked through"))
    }
}

/// Adds to a text what fits into so many bytes; says whether that was all.
pub(super) fn push_within(text: &mut String, more: &str, most: usize) -> bool {
    let end = more.floor_char_boundary(most.saturating_sub(text.len()));
    text.push_str(&more[..end]);
    end == more.len()
}

fn walk<F: Files + ?Sized>(files: &mut F, path: &str, follow: bool) -> io::Result<Option<Entry<F::Node>>> {
    if path.len() > MAX_PATH {
        return Ok(None);
    }
    let root = Entry { name: String::new(), kind: Kind::Folder, node: files.root()? };
    let mut way = vec![root];
    let mut left: VecDeque<String> = parts(path).collect();
    let (mut links, mut looked) = (0, 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            // The top folder is its own parent.
            way.truncate((way.len() - 1).max(1));
            continue;
        }
        let Some(here) = way.last().filter(|entry| entry.kind == Kind::Folder) else { return Ok(None) };
        looked += 1;
        if looked > MAX_PARTS {
            return Ok(None);
        }
        let folder = here.node.clone();
        let found = files.list(&folder)?.into_iter().find(|entry| files.same(&entry.name, &name));
        let Some(found) = found else { return Ok(None) };
        if found.kind == Kind::Link && (follow || !left.is_empty()) {
            links += 1;
            if links > MAX_LINKS {
                return Ok(None);
            }
            let target = files.target(&found.node)?;
            if target.starts_with('/') {
                way.truncate(1);
            }
            for part in parts(&target).rev() {
                left.push_front(part);
            }
        } else {
            way.push(found);
        }
    }
    Ok(way.pop())
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

/// A tree in memory, for tests.
#[cfg(test)]
pub(crate) mod memory {
    use std::collections::BTreeMap;

    use super::*;

    /// Files by path; a value that begins with `->` is a link.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Memory(pub(crate) BTreeMap<String, Vec<u8>>);

    impl Memory {
        pub(crate) fn of(files: &[(&str, &str)]) -> Self {
            Self(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
        }
    }

    impl Files for Memory {
        type Node = String;

        fn root(&mut self) -> io::Result<String> {
            Ok(String::new())
        }

        fn list(&mut self, folder: &String) -> io::Result<Vec<Entry<String>>> {
            let mut entries: Vec<Entry<String>> = Vec::new();
            for (path, bytes) in &self.0 {
                let Some(rest) = path.strip_prefix(&format!("{folder}/")) else { continue };
                let (name, kind) = match rest.split_once('/') {
                    Some((name, _)) => (name, Kind::Folder),
                    None if bytes.starts_with(b"->") => (rest, Kind::Link),
                    None => (rest, Kind::File),
                };
                if entries.iter().all(|entry| entry.name != name) {
                    entries.push(Entry { name: name.to_owned(), kind, node: format!("{folder}/{name}") });
                }
            }
            Ok(entries)
        }

        fn target(&mut self, link: &String) -> io::Result<String> {
            Ok(String::from_utf8_lossy(&self.0[link][2..]).into_owned())
        }

        fn size(&mut self, file: &String) -> io::Result<u64> {
            Ok(self.0[file].len() as u64)
        }

        fn read(&mut self, file: &String, most: usize) -> io::Result<Vec<u8>> {
            Ok(self.0[file].iter().copied().take(most).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::Memory;
    use super::*;

    #[test]
    fn links_are_followed_within_the_tree_and_loops_end() {
        let mut files = Memory::of(&[
            ("/lib", "->usr/lib"),
            ("/usr/lib/os-release", "ID=debian"),
            ("/etc/os-release", "->../usr/lib/os-release"),
            ("/etc/absolute", "->/lib/../lib/os-release"),
            ("/etc/outside", "->../../../../usr/lib/os-release"),
            ("/a", "->b"),
            ("/b", "->a"),
        ]);
        for path in ["etc/os-release", "/etc/absolute", "/etc/outside", "//lib/./os-release"] {
            assert_eq!(files.read_at(path, 100).unwrap().as_deref(), Some(&b"ID=debian"[..]), "{path}");
        }
        assert_eq!(files.find_link("/etc/os-release").unwrap().unwrap().kind, Kind::Link);
        for path in ["/a", "/nowhere/x", "/usr/lib/os-release/x"] {
            assert_eq!(files.find(path).unwrap(), None, "{path}");
        }
        let long = "usr/../".repeat(MAX_PARTS) + "lib/os-release";
        assert_eq!(files.find(&long).unwrap(), None);
        assert_eq!(files.list_at("/lib").unwrap().len(), 1);
        assert_eq!(files.list_at("/etc/os-release").unwrap(), []);
    }
}
