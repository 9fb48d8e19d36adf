//! `isokiln checkpoint export`: a checkpoint as an `oci-archive`, the tar of an image layout that skopeo,
//! podman and others load.

use std::io::Write;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Entry, oci_layout};
use tar::{Builder, EntryType, Header};

use super::{IoContext, Store, StoreError};

impl Store {
    /// Writes an archive that holds one checkpoint and nothing else.
    pub fn export(&self, manifest: Digest, sink: impl Write) -> Result<(), StoreError> {
        let no_such = || StoreError::NoSuchCheckpoint { what: manifest.to_string() };
        let entry =
            self.entries()?.into_iter().rev().find(|entry| entry.manifest == manifest).ok_or_else(no_such)?;
        let document = self.get(manifest)?;
        let bad = |reason| StoreError::BadDocument { path: self.blob_path(manifest), reason };
        let mut blobs = Entry::references(&document).map_err(bad)?;
        blobs.push((manifest, entry.size));
        blobs.sort();
        blobs.dedup();

        let mut archive = Builder::new(sink);
        let index = Entry::write_index(&[entry]);
        let failed = |error| StoreError::Layer(isokiln_core::layer::LayerError::Write(error));
        for (name, bytes) in [("oci-layout", oci_layout()), ("index.json", index)] {
            archive.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice()).map_err(failed)?;
        }
        for folder in ["blobs/", "blobs/sha256/"] {
            let mut header = header(0);
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, folder, std::io::empty()).map_err(failed)?;
        }
        for (digest, size) in blobs {
            let path = self.blob_path(digest);
            let on_disk = std::fs::metadata(&path).on("read", &path)?.len();
            if on_disk != size {
                return Err(StoreError::Damaged { digest });
            }
            let name = format!("blobs/sha256/{}", digest.hex());
            archive.append_data(&mut header(size), name, self.reader(digest)?).map_err(|error| {
                match StoreError::from_read(error, &path) {
                    StoreError::Io { source, .. } => failed(source),
                    damaged => damaged,
                }
            })?;
        }
        archive.into_inner().and_then(|mut sink| sink.flush()).map_err(failed)
    }
}

fn header(size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header
}
