//! What is seen of a machine from outside, and what is done at its keyboard. The eye owns QEMU's monitor:
//! everybody else asks it through [`Wish`]es and hears from it by [`Seen`].

use std::time::Duration;

use isokiln_core::boot::screen::{BootMenu, FontReader, Frame, TextScreen};
use isokiln_core::boot::{Chord, GuestFiles, Processor, disk_bytes};
use qapi::qmp::{self, KeyValue, QKeyCode, QKeyCodeWrapper};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior};

use super::qmp::Monitor;
use super::{BootError, Guest};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a key is held, in milliseconds, and how long until the next.
const HOLD: i64 = 30;
const NEXT_KEY: Duration = Duration::from_millis(60);
/// A file of the guest is read in milliseconds.
const READING: Duration = Duration::from_secs(20);
/// Size of a picture of the text mode that BIOS and boot loaders use: 80 by 25 cells of 9 by 16 dots.
const TEXT_MODE: (u32, u32) = (720, 400);
/// Where the text of that mode lies, and how many bytes it has.
const TEXT_MEMORY: (u64, u64) = (0xb8000, 4000);
/// The file of the builder image with the font that Linux draws its console with.
const FONT: &str = "/usr/share/seabios/vgabios-stdvga.bin";

/// What the eye is asked for.
#[derive(Debug)]
pub(super) enum Wish {
    /// Press keys, one chord after the other.
    Press(Vec<Chord>),
    /// Say why the machine was stopped.
    Status,
    /// Give the monitor a line that it answers by nothing.
    Order(String),
}

/// What the eye tells.
#[derive(Debug)]
pub(super) enum Seen {
    /// The machine, a moment ago.
    Look(Box<Look>),
    /// The keys are pressed.
    Pressed,
    /// The state of the machine, as QEMU calls it.
    Status(String),
    /// The monitor's answer to an order that it did not carry out.
    Refused(String),
}

/// The machine at one moment.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The screen's text, where it shows text: exactly, from video memory or by the shapes of a console's letters.
    pub(super) text: Option<TextScreen>,
    /// The picture, where it is another than the last time.
    pub(super) picture: Option<Frame>,
    /// What the processors do.
    pub(super) processors: Vec<Processor>,
    /// Bytes moved from and to the medium so far.
    pub(super) disk_bytes: u64,
}

impl Look {
    /// The boot menu on the screen.
    pub(super) fn menu(&self) -> Option<BootMenu> {
        self.text.as_ref().and_then(BootMenu::read)
    }
}

/// The eye.
pub(super) struct Eye<'g> {
    guest: &'g dyn Guest,
    files: GuestFiles,
    monitor: Monitor<'g>,
    seen: UnboundedSender<Seen>,
    font: Option<FontReader>,
    last_ppm: Vec<u8>,
    last_text: Option<TextScreen>,
    complained: bool,
}

impl<'g> Eye<'g> {
    /// Connects to the monitor. QEMU's events go to `events`.
    pub(super) async fn open(
        guest: &'g dyn Guest,
        files: GuestFiles,
        events: UnboundedSender<Value>,
        seen: UnboundedSender<Seen>,
    ) -> Result<Self, BootError> {
        let monitor = Monitor::open(guest, files.path("qmp.sock"), events).await?;
        Ok(Self {
            guest,
            files,
            monitor,
            seen,
            font: None,
            last_ppm: Vec::new(),
            last_text: None,
            complained: false,
        })
    }

    /// Starts the machine and looks at it until nobody wishes anything any more.
    pub(super) async fn run(mut self, mut wishes: UnboundedReceiver<Wish>) -> Result<(), BootError> {
        self.monitor.execute(qmp::cont {}).await?;
        // Without it, the consoles of Linux are not read.
        self.font = self.read(FONT).await.ok().and_then(|rom| FontReader::find_in(&rom));
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(Wish::Press(chords)) => {
                        self.press(&chords).await?;
                        self.seen.send(Seen::Pressed)
                    }
                    Some(Wish::Status) => {
                        let status = self.monitor.execute(qmp::query_status {}).await?;
                        self.seen.send(Seen::Status(format!("{:?}", status.status)))
                    }
                    Some(Wish::Order(line)) => match self.ask(&line).await {
                        Ok(answer) if answer.trim().is_empty() => Ok(()),
                        Ok(complaint) => self.seen.send(Seen::Refused(complaint.trim().to_owned())),
                        Err(BootError::Monitor { reason, .. }) => self.seen.send(Seen::Refused(reason)),
                        Err(error) => return Err(error),
                    },
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    let look = self.look().await?;
                    self.seen.send(Seen::Look(Box::new(look)))
                }
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }

    async fn press(&mut self, chords: &[Chord]) -> Result<(), BootError> {
        for chord in chords {
            let start = Instant::now();
            let keys = chord.iter().filter_map(|name| name.parse::<QKeyCode>().ok());
            let keys = keys.map(|data| KeyValue::qcode(QKeyCodeWrapper { data })).collect();
            self.monitor.execute(qmp::send_key { hold_time: Some(HOLD), keys }).await?;
            tokio::time::sleep_until(start + NEXT_KEY).await;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<Look, BootError> {
        let processors = Processor::parse(&self.ask("info registers -a").await?);
        let disk_bytes = disk_bytes(&self.ask("info blockstats").await?);
        let mut look = Look { text: self.last_text.clone(), picture: None, processors, disk_bytes };
        // Pictures are evidence; a machine that gives none is judged by the rest.
        match self.picture().await {
            Ok(ppm) if ppm == self.last_ppm => {}
            Ok(ppm) => {
                match Frame::from_ppm(&ppm) {
                    Ok(frame) => {
                        look.text = self.text(&frame).await?;
                        self.last_text.clone_from(&look.text);
                        look.picture = Some(frame);
                    }
                    Err(error) => self.complain(&error.to_string()),
                }
                self.last_ppm = ppm;
            }
            Err(BootError::Monitor { command, reason }) => self.complain(&format!("{command}: {reason}")),
            Err(error) => return Err(error),
        }
        Ok(look)
    }

    /// Once: what is wrong with one picture is wrong with all.
    fn complain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("no picture of the screen: {reason}");
        }
    }

    async fn ask(&mut self, question: &str) -> Result<String, BootError> {
        let command_line = question.to_owned();
        self.monitor.execute(qmp::human_monitor_command { cpu_index: None, command_line }).await
    }

    async fn picture(&mut self) -> Result<Vec<u8>, BootError> {
        let path = self.files.path("screen.ppm");
        self.monitor.screenshot(&path).await?;
        self.read(&path).await
    }

    async fn text(&mut self, frame: &Frame) -> Result<Option<TextScreen>, BootError> {
        if (frame.width(), frame.height()) == TEXT_MODE {
            let filename = self.files.path("screen.txt");
            let (val, size) = TEXT_MEMORY;
            self.monitor.execute(qmp::pmemsave { filename: filename.clone(), size, val }).await?;
            let memory = TextScreen::from_vga(&self.read(&filename).await?);
            // Linux moves its console through the memory as it scrolls, so that only boot loaders are read there; but
            // they are read with their colours.
            if memory.as_ref().and_then(BootMenu::read).is_some() {
                return Ok(memory);
            }
            return Ok(self.font.as_ref().and_then(|font| font.read(frame)).or(memory));
        }
        Ok(self.font.as_ref().and_then(|font| font.read(frame)))
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, BootError> {
        let slow = |_| BootError::Host(format!("reading {path} of the guest took too long"));
        tokio::time::timeout(READING, self.guest.read(path)).await.map_err(slow)?
    }
}
