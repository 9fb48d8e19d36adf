//! Layers as streams of tar members, and the two ways to write "this file is gone".
//!
//! An overlay upper directory marks a deleted name by a character device 0:0 and a replaced directory
//! by the extended attribute `trusted.overlay.opaque`. An OCI layer marks them by empty files named
//! `.wh.NAME` and `.wh..wh..opq` (OCI image specification, "Filesystem layer", whiteouts).
//! [`overlay_to_oci`] and [`oci_to_overlay`] rewrite one into the other while the bytes stream past,
//! in constant memory. Everything else passes through unchanged, so that a layer restored from the
//! store is the directory that was captured.

mod members;
mod pax;
mod rewrite;
#[cfg(test)]
mod tests;

pub use rewrite::{Census, LayerError, oci_to_overlay, overlay_to_oci};
