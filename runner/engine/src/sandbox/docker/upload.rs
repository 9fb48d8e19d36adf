//! Files put into containers before they start, as a tar that is made while it is sent.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use isokiln_core::digest::{Digest, Hasher};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use walkdir::WalkDir;

use super::super::ContainerFile;
use super::HOME;
use crate::library;

/// Bytes sent at once.
const PIECE: usize = 256 << 10;

/// Things to put into a container.
pub(super) struct Upload {
    files: Vec<ContainerFile>,
    trees: Vec<(String, PathBuf)>,
}

impl Upload {
    /// The stage library, which every container needs for its leash.
    pub(super) fn library() -> Self {
        Self { files: library::container_files(), trees: Vec::new() }
    }

    pub(super) fn files(mut self, files: impl IntoIterator<Item = ContainerFile>) -> Self {
        self.files.extend(files);
        self
    }

    /// Project files and folders, by the name that they get below `inputs/`.
    pub(super) fn inputs(mut self, inputs: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        self.trees.extend(inputs.into_iter().map(|(name, path)| (format!("{HOME}/inputs/{name}"), path)));
        self
    }

    /// The tar, made in a thread of its own as fast as it is taken.
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (sender, mut receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut sink = ChannelWriter { waiting: Vec::with_capacity(PIECE), sender };
            let written = self.write(&mut sink).and_then(|()| sink.flush());
            if let Err(error) = written {
                // The receiver may be gone too; then nobody is left to tell.
                drop(sink.sender.blocking_send(Err(error)));
            }
        });
        futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
    }

    fn write(&self, sink: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(sink);
        for file in &self.files {
            let mut header = header(EntryType::Regular, if file.executable { 0o755 } else { 0o644 });
            header.set_size(file.bytes.len() as u64);
            archive.append_data(&mut header, file.path.trim_start_matches('/'), &*file.bytes)?;
        }
        for (name, path) in &self.trees {
            append_tree(&mut archive, name.trim_start_matches('/'), path)?;
        }
        archive.finish()
    }
}

/// Why a project's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct InputError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Digest of a file or folder, as it goes into a container: names, contents, links and who may execute,
/// but neither owners nor times nor the rest of the modes, which differ from checkout to checkout.
pub fn digest_input(path: &Path) -> Result<Digest, InputError> {
    struct HashWriter(Hasher);
    impl Write for HashWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut archive = Builder::new(HashWriter(Hasher::new()));
    append_tree(&mut archive, "input", path)
        .and_then(|()| archive.into_inner())
        .map(|writer| writer.0.finish())
        .map_err(|source| InputError { path: path.to_owned(), source })
}

fn append_tree<W: Write>(archive: &mut Builder<W>, name: &str, root: &Path) -> io::Result<()> {
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(io::Error::from)?;
        let relative = entry.path().strip_prefix(root).map_err(io::Error::other)?;
        let target = if relative.as_os_str().is_empty() {
            PathBuf::from(name)
        } else {
            Path::new(name).join(relative)
        };
        // A link given as the input itself stands for what it points to; links inside stay links.
        let metadata = if entry.depth() == 0 {
            fs::metadata(entry.path())?
        } else {
            entry.metadata().map_err(io::Error::from)?
        };
        if metadata.is_dir() {
            archive.append_data(&mut header(EntryType::Directory, 0o755), target, io::empty())?;
        } else if metadata.is_symlink() {
            let link = fs::read_link(entry.path())?;
            archive.append_link(&mut header(EntryType::Symlink, 0o777), target, link)?;
        } else if metadata.is_file() {
            let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            let mut header = header(EntryType::Regular, mode);
            header.set_size(metadata.len());
            archive.append_data(&mut header, target, File::open(entry.path())?)?;
        } else {
            return Err(io::Error::other(format!(
                "{} is neither a file nor a folder nor a link",
                entry.path().display()
            )));
        }
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

struct ChannelWriter {
    waiting: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(Bytes::from(piece))).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_digest_follows_contents_names_links_and_execution_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), "hello").unwrap();
        symlink("motd", root.join("etc/link")).unwrap();
        let before = digest_input(&root).unwrap();
        let set_mode =
            |mode| fs::set_permissions(root.join("etc/motd"), fs::Permissions::from_mode(mode)).unwrap();

        set_mode(0o600);
        File::open(root.join("etc/motd")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(digest_input(&root).unwrap(), before, "neither umask nor time counts");
        set_mode(0o700);
        assert_ne!(digest_input(&root).unwrap(), before, "execution counts");
        set_mode(0o644);
        fs::remove_file(root.join("etc/link")).unwrap();
        symlink("other", root.join("etc/link")).unwrap();
        assert_ne!(digest_input(&root).unwrap(), before, "links count");
    }

    #[test]
    fn a_missing_input_is_named() {
        let error = digest_input(Path::new("/nonexistent/branding")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent/branding");
    }
}
