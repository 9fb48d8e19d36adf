//! Screens of real machines, kept in `fixtures/`.

use super::TextScreen;

/// A captured file.
pub(super) fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/src/boot/screen/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A captured text screen.
pub(super) fn vga(name: &str) -> TextScreen {
    TextScreen::from_vga(&bytes(&format!("{name}.vga"))).unwrap_or_else(|| panic!("{name} is no text screen"))
}

/// What a terminal shows after a captured serial output.
pub(super) fn serial(name: &str) -> TextScreen {
    TextScreen::from_vt100(&bytes(&format!("{name}.vt100")))
}
