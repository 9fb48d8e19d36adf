//! `screen`: words on the text screen, or a likeness to a picture. Seen from outside, without a probe.

use serde::{Deserialize, Serialize};

use crate::boot::screen::{Area, Frame};

/// What the screen must show at some time.
#[derive(Debug, Clone, PartialEq)]
pub enum OnScreen {
    /// Words on a text screen, a kernel's console or a serial console.
    Words(String),
    /// A picture like this one.
    Picture(Reference),
}

/// A reference picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// PNG file.
    pub path: String,
    /// How alike the screen must be, from 0 to 1.
    pub similarity: f64,
    /// Parts of the screen that may differ: left, top, width, height in dots.
    pub masks: Vec<[u32; 4]>,
}

/// How alike a picture must be where nothing is said.
pub(super) const SIMILARITY: f64 = 0.95;

impl Reference {
    /// How like the reference a picture is, from 0 to 1.
    pub fn likeness(&self, reference: &Frame, frame: &Frame) -> f64 {
        let masks: Vec<_> = self
            .masks
            .iter()
            .map(|[x, y, width, height]| Area { x: *x, y: *y, width: *width, height: *height })
            .collect();
        frame.similarity(reference, &masks)
    }
}
