//! Streams between a helper in the engine and a thread of this process.

use std::future::Future;
use std::io::{Read, Write};
use std::pin::Pin;

use isokiln_core::event::Usage;

use super::SandboxError;

/// Resolves when the helper at the other end has done its part, with its error if it failed.
pub(super) type Done = Pin<Box<dyn Future<Output = Result<(), SandboxError>> + Send>>;

/// Resolves when a stage's container is gone, with what it used.
pub type Dismissed = Pin<Box<dyn Future<Output = Result<Usage, SandboxError>> + Send>>;

/// Bytes out of the engine. Read from a blocking thread; valid only if `done` is.
pub struct Outflow {
    /// Ends where the helper stops writing, also if it fails.
    pub bytes: Box<dyn Read + Send>,
    /// How the helper ended.
    pub done: Done,
}

/// Bytes into the engine. Written from a blocking thread, then dropped; taken only if `done` is.
pub struct Inflow {
    /// Fails where the helper stops reading.
    pub bytes: Box<dyn Write + Send>,
    /// How the helper ended.
    pub done: Done,
}
