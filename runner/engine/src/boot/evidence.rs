//! The folder of a boot test: logs, events and pictures.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use isokiln_core::boot::HOOK_FOLDER;
use isokiln_core::boot::screen::{Filmstrip, Frame, FrameError};

use super::{BootError, BootRequest};

/// Longest log that is kept, in bytes; a guest that floods its console must not fill the disk.
const MAX_LOG: u64 = 64 << 20;
/// Pictures that are kept besides those with a label; the filmstrip has the rest.
const MAX_PICTURES: usize = 120;

/// Writes the evidence of one boot.
pub(super) struct Evidence {
    folder: PathBuf,
    pictures: usize,
    lengths: HashMap<&'static str, u64>,
}

impl Evidence {
    pub(super) fn new(folder: &Path) -> Result<Self, BootError> {
        let screens = folder.join("screens");
        fs::create_dir_all(&screens).map_err(|source| BootError::Evidence { path: screens, source })?;
        Ok(Self { folder: folder.to_owned(), pictures: 0, lengths: HashMap::new() })
    }

    /// Adds bytes to a log.
    pub(super) fn append(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), BootError> {
        let length = self.lengths.entry(name).or_default();
        let room = MAX_LOG.saturating_sub(*length).min(bytes.len() as u64) as usize;
        *length += bytes.len() as u64;
        let is_cut = room < bytes.len() && room > 0;
        self.write(name, |path| {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(&bytes[..room])?;
            if is_cut { file.write_all(b"\n[isokiln: the log goes on, but is not kept]\n") } else { Ok(()) }
        })
    }

    /// Keeps a picture, named by its time.
    pub(super) fn picture(
        &mut self,
        seconds: f64,
        label: Option<&str>,
        frame: &Frame,
    ) -> Result<(), BootError> {
        self.pictures += 1;
        if self.pictures > MAX_PICTURES && label.is_none() {
            return Ok(());
        }
        let label = label.map(|label| format!("-{label}")).unwrap_or_default();
        self.png(&format!("screens/{seconds:06.1}s{label}.png"), frame)
    }

    /// Keeps the picture that belongs to a check; gives its name.
    pub(super) fn picture_of(&self, check: &str, frame: &Frame) -> Result<String, BootError> {
        let name: String =
            check.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).take(60).collect();
        let name = format!("screens/{name}.png");
        self.png(&name, frame)?;
        Ok(name)
    }

    /// Writes a picture as a PNG.
    pub(super) fn png(&self, name: &str, frame: &Frame) -> Result<(), BootError> {
        self.drawn(name, frame.to_png())
    }

    /// Draws the filmstrip: all pictures on a sheet, and as they followed each other.
    pub(super) fn film(&self, film: &Filmstrip) -> Result<(), BootError> {
        if film.is_empty() {
            return Ok(());
        }
        for (name, drawn) in [("filmstrip.png", film.contact_sheet()), ("filmstrip.gif", film.animation())] {
            self.drawn(name, drawn)?;
        }
        Ok(())
    }

    fn drawn(&self, name: &str, drawn: Result<Vec<u8>, FrameError>) -> Result<(), BootError> {
        match drawn {
            Ok(bytes) => self.file(name, &bytes),
            // The verdict stands without it.
            Err(error) => {
                tracing::warn!("no {name}: {error}");
                Ok(())
            }
        }
    }

    /// Writes the script with which a person starts the same machine.
    pub(super) fn by_hand(
        &self,
        request: &BootRequest,
        prepare: &str,
        arguments: &[String],
    ) -> Result<(), BootError> {
        let quoted: Vec<_> =
            arguments.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let script = format!(
            r#"#!/bin/sh
# Starts the machine of this boot test by hand. Its first serial port is on this terminal;
# Ctrl-A X ends it, Ctrl-A C is QEMU's monitor. With --screen a VNC viewer on this computer shows its screen
# (127.0.0.1:5900). ENGINE=podman uses podman.
# ISO under test: {iso} ({digest})
set -eu
usage="usage: $0 [--screen] ISO"
publish= vnc=
if [ "${{1:?$usage}}" = --screen ]; then
  publish='-p 127.0.0.1:5900:5900' vnc='-vnc :0'
  shift
fi
terminal=
if [ -t 0 ]; then terminal=-t; fi
iso=$(realpath "${{1:?$usage}}")
exec "${{ENGINE:-docker}}" run --rm -i $terminal $publish {kvm}-v "$iso":/iso/under-test.iso:ro {builder} sh -c '
mkdir -p /tmp/machine {HOOK_FOLDER}
{prepare}exec qemu-system-x86_64 "$@"' machine \
  {arguments} \
  $vnc
"#,
            iso = request.iso.name.replace('\n', " "),
            digest = request.iso.digest,
            kvm = if arguments.iter().any(|word| word == "kvm") { "--device /dev/kvm " } else { "" },
            builder = request.builder,
            prepare = prepare.replace('\'', "'\\''"),
            arguments = quoted.join(" \\\n  "),
        );
        self.file("reproduce.sh", script.as_bytes())
    }

    /// Writes a whole file.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), BootError> {
        self.write(name, |path| fs::write(path, bytes))
    }

    fn write(&self, name: &str, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), BootError> {
        let path = self.folder.join(name);
        write(&path).map_err(|source| BootError::Evidence { path, source })
    }
}
