//! Seeing what a machine shows: text screens, boot menus, pictures, and whether anything still happens.
//!
//! All of it works on bytes that somebody else has taken from the machine: memory, serial output, pictures.

mod cp437;
mod filmstrip;
#[cfg(test)]
mod fixtures;
mod font;
mod frame;
mod menu;
mod pulse;
mod text;

pub use filmstrip::Filmstrip;
pub use font::FontReader;
pub use frame::{Area, Frame, FrameError};
pub use menu::{BootMenu, Loader, MenuState};
pub use pulse::{Condition, Pulse, ScreenId, Vitals};
pub use text::{Attribute, TextScreen};
