//! Reading an ISO without mounting it, without a container engine and without root.

mod compression;
mod shared;
mod squashfs;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use isokiln_core::boot::iso::{Files, IsoTree, Kind, Layers, RootImage};
use isokiln_core::boot::{Inspection, NotAnIso};

use shared::SharedFile;
use squashfs::Squashfs;

/// Reads all that an ISO says of itself: boot records, boot menus, kernels, the live system. Only what is needed is
/// read, so that it takes far less than a second and a few megabytes of memory however large the ISO is.
pub fn inspect(path: &Path) -> Result<Inspection, NotAnIso> {
    let (mut inspection, mut tree) = Inspection::read(SharedFile::new(File::open(path)?))?;
    let mut layers = Vec::new();
    let mut paths = Vec::new();
    for image in inspection.root_images(&mut tree) {
        match open(&tree, &image) {
            Ok(squashfs) => {
                inspection
                    .problems
                    .extend(squashfs.complaint().map(|words| format!("{} {words}", image.path)));
                layers.push(squashfs);
                paths.push(image.path);
            }
            Err(error) => inspection.problems.push(format!("{} cannot be read: {error}", image.path)),
        }
    }
    if !layers.is_empty() {
        inspection.add_system(&mut Layers(layers), paths);
    }
    Ok(inspection)
}

/// A file of an ISO, from its beginning to its end: the kernel, an initrd.
pub fn extract(path: &Path, file_in_iso: &str) -> io::Result<impl Read + Seek + Send + use<>> {
    let no_iso = |error| match error {
        NotAnIso::Read(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    };
    let mut tree = IsoTree::open(SharedFile::new(File::open(path)?)).map_err(no_iso)?;
    match tree.find(file_in_iso)? {
        Some(entry) if entry.kind == Kind::File => Ok(tree.reader(&entry.node)),
        _ => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no file {file_in_iso} on the ISO")))
        }
    }
}

fn open(
    tree: &IsoTree<SharedFile>,
    image: &RootImage,
) -> io::Result<Squashfs<isokiln_core::boot::iso::ExtentReader<SharedFile>>> {
    let mut squashfs = Squashfs::open(tree.reader(&image.node))?;
    // A file system whose top folder cannot be read has nothing to say.
    let root = squashfs.root()?;
    squashfs.list(&root)?;
    Ok(squashfs)
}

#[cfg(test)]
mod tests;
