//! What a made-up machine shows to those who only look: its processors, its disks, its screen, its keyboard.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// What it shows so many seconds after its start, when these keys were pressed.
pub(super) type Body = Arc<dyn Fn(f64, &[Key]) -> Pose + Send + Sync>;

/// Keys that were pressed together (`ctrl-x`), and when.
pub(super) type Key = (f64, String);

/// One moment.
#[derive(Debug, Clone)]
pub(super) struct Pose {
    pub(super) processor: Processor,
    /// Bytes moved from and to its disks so far.
    pub(super) disk: u64,
    pub(super) screen: Screen,
}

/// What the processor does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Processor {
    /// Firmware or a boot loader that waits: two addresses.
    Waits,
    /// A memory test: many addresses in few pages.
    Tests,
    /// The kernel of Linux at work.
    Kernel,
    /// The kernel of Linux in a loop of two instructions.
    Loops,
    /// The kernel of Linux, waiting for an interrupt.
    Halted,
    /// A program at work.
    Program,
}

/// What the screen shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Screen {
    /// A small picture of one grey.
    Grey(u8),
    /// Rows of ASCII in text mode.
    Text(String),
    /// Text mode, as the memory holds it.
    Vga(Vec<u8>),
    /// A picture.
    Ppm(Vec<u8>),
}

impl Pose {
    pub(super) fn new(processor: Processor, disk: u64, screen: Screen) -> Self {
        Self { processor, disk, screen }
    }

    /// A screen of text, a processor, and disks at rest.
    pub(super) fn text(processor: Processor, text: impl Into<String>) -> Self {
        Self::new(processor, 0, Screen::Text(text.into()))
    }
}

impl Processor {
    fn registers(self, seconds: f64) -> String {
        let step = seconds as u64;
        let linux = 0xffff_ffff_8100_0000;
        let (counter, privilege, halted) = match self {
            Self::Waits => (0x7c00 + step % 2 * 16, 0, 0),
            Self::Tests => (0x10_0000 + step % 3 * 0x1000 + step * 24 % 0xff0, 0, 0),
            Self::Kernel => (linux + step * 0x3000, 0, 0),
            Self::Loops => (linux + step % 2 * 8, 0, 0),
            Self::Halted => (linux + step * 0x3000, 0, 1),
            Self::Program => (0x7f00_0000_0000 + step * 0x3000, 3, 0),
        };
        format!(
            "\r\nCPU#0\r\nRIP={counter:016x} RFL=00000246 [---Z-P-] CPL={privilege} II=0 A20=1 SMM=0 HLT={halted}\r\n"
        )
    }
}

impl Screen {
    fn ppm(&self) -> Vec<u8> {
        let (width, height, pixels) = match self {
            Self::Ppm(ppm) => return ppm.clone(),
            Self::Grey(grey) => (64, 48, vec![*grey; 64 * 48 * 3]),
            Self::Text(_) | Self::Vga(_) => {
                // Not what the text looks like, but another picture for every other text.
                let mut hasher = DefaultHasher::new();
                self.memory().hash(&mut hasher);
                let mut pixels = vec![0; 720 * 400 * 3];
                pixels[..8].copy_from_slice(&hasher.finish().to_le_bytes());
                (720, 400, pixels)
            }
        };
        [format!("P6\n{width} {height}\n255\n").into_bytes(), pixels].concat()
    }

    fn memory(&self) -> Vec<u8> {
        match self {
            Self::Grey(_) | Self::Ppm(_) => vec![0; 4000],
            Self::Vga(memory) => memory[..4000].to_vec(),
            Self::Text(text) => {
                let mut memory = [b' ', 7].repeat(80 * 25);
                for (row, line) in text.lines().enumerate() {
                    for (column, character) in line.bytes().enumerate() {
                        memory[(row * 80 + column) * 2] = character;
                    }
                }
                memory
            }
        }
    }
}

/// A machine's body as it lives.
pub(super) struct Sight {
    body: Body,
    started: Instant,
    keys: Mutex<Vec<Key>>,
    /// The last picture, which is seldom another than the one before.
    drawn: Mutex<Option<(Screen, Vec<u8>)>>,
    /// What its disks were told, and when.
    told: Mutex<Vec<(f64, String)>>,
}

impl Sight {
    pub(super) fn new(body: Body) -> Arc<Self> {
        Arc::new(Self {
            body,
            started: Instant::now(),
            keys: Mutex::default(),
            drawn: Mutex::default(),
            told: Mutex::default(),
        })
    }

    fn pose(&self) -> (f64, Pose) {
        let seconds = self.started.elapsed().as_secs_f64();
        (seconds, (self.body)(seconds, &self.keys.lock().unwrap()))
    }

    /// Notes keys.
    pub(super) fn press(&self, names: &[&str]) {
        self.keys.lock().unwrap().push((self.started.elapsed().as_secs_f64(), names.join("-")));
    }

    /// The keys that were pressed.
    pub(super) fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().iter().map(|(_, name)| name.clone()).collect()
    }

    /// What the monitor prints for a question of people's.
    pub(super) fn print(&self, question: &str) -> String {
        let (seconds, pose) = self.pose();
        match question {
            "info registers -a" => pose.processor.registers(seconds),
            "info blockstats" => format!("medium (#block1): rd_bytes={} wr_bytes=0\r\n", pose.disk),
            order if order.starts_with("qemu-io ") => {
                self.told.lock().unwrap().push((seconds, order.to_owned()));
                String::new()
            }
            other => panic!("no answer to {other:?}"),
        }
    }

    /// What its disks were told, and when.
    pub(super) fn told(&self) -> Vec<(f64, String)> {
        self.told.lock().unwrap().clone()
    }

    /// A file that the monitor wrote.
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        let screen = self.pose().1.screen;
        match name {
            "screen.txt" => Some(screen.memory()),
            "screen.ppm" => {
                let mut drawn = self.drawn.lock().unwrap();
                let (_, ppm) = match drawn.take() {
                    Some((before, ppm)) if before == screen => drawn.insert((before, ppm)),
                    _ => {
                        let ppm = screen.ppm();
                        drawn.insert((screen, ppm))
                    }
                };
                Some(ppm.clone())
            }
            _ => None,
        }
    }
}

/// The text that keys type.
pub(super) fn typed(keys: &[Key]) -> String {
    keys.iter()
        .filter_map(|(_, name)| match name.as_str() {
            "spc" => Some(' '),
            "minus" => Some('-'),
            "shift-minus" => Some('_'),
            "dot" => Some('.'),
            "comma" => Some(','),
            "equal" => Some('='),
            name => {
                let shifted = name.strip_prefix("shift-").map(str::to_uppercase);
                let name = shifted.unwrap_or_else(|| name.to_owned());
                (name.len() == 1).then(|| name.chars().next()).flatten()
            }
        })
        .collect()
}
