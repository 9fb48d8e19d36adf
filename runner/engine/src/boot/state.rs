//! What a session knows and remembers of its machine.

use isokiln_core::boot::screen::{Filmstrip, Frame, ScreenId};
use isokiln_core::boot::{Channel, CheckResult, Chord, ConsoleReader, Login, MenuEdit, Ride, Start};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::eye::Wish;
use super::questions::Questions;
use super::screen_checks::ScreenChecks;
use super::watch::{Expected, Watch};
use super::{BootError, BootRequest};

/// Frames of the filmstrip, and their width in dots.
const FRAMES: usize = 48;
const FRAME_WIDTH: u32 = 480;

/// What the session knows and remembers of its machine.
pub(super) struct State {
    pub(super) watch: Watch,
    pub(super) questions: Questions,
    pub(super) screens: ScreenChecks,
    pub(super) results: Vec<CheckResult>,
    pub(super) notes: Vec<String>,
    pub(super) consoles: [ConsoleReader; 2],
    pub(super) serial_bytes: u64,
    /// The end of what the serial port said, for what a terminal would show.
    pub(super) terminal: Vec<u8>,
    /// Rows of the screen that were read before.
    pub(super) rows: Vec<String>,
    /// Reads them.
    pub(super) reader: ConsoleReader,
    pub(super) film: Filmstrip,
    pub(super) label: Option<&'static str>,
    /// Since when all questions are answered.
    pub(super) done_since: Option<Instant>,
    /// Whether anything was seen of the machine.
    pub(super) has_looked: bool,
    pub(super) last_picture: Option<Frame>,
    /// Whether the firmware would not see the ISO's boot record, where it is not to.
    pub(super) record_hidden: bool,
    pub(super) screen: ScreenId,
    pub(super) shell: Login,
    pub(super) shell_line: String,
    pub(super) console: Login,
    pub(super) menu_edit: Option<MenuEdit>,
    pub(super) edit_given_up: bool,
    /// Whether Enter was pressed at what stood still, and at a boot menu.
    pub(super) enter_pressed: bool,
    pub(super) menu_answered: bool,
    /// How the probe would have come in if it spoke up now.
    pub(super) entry: Option<Channel>,
    pub(super) channel: Option<Channel>,
    pub(super) wishes: UnboundedSender<Wish>,
    /// Wishes that are not carried out yet.
    pub(super) pressing: usize,
}

impl State {
    pub(super) fn new(
        request: &BootRequest,
        ride: &Ride,
        wishes: UnboundedSender<Wish>,
    ) -> Result<Self, BootError> {
        let direct = matches!(ride.start, Start::Kernel(_));
        let menu_edit = ride.channels.contains(&Channel::BootMenu).then(MenuEdit::default);
        let holds_linux = direct || request.iso.holds_linux;
        let expected = match ride.channels.first() {
            None => Expected::Never,
            Some(Channel::Credentials) if request.iso.takes_credentials => Expected::Surely,
            Some(_) => Expected::Perhaps,
        };
        Ok(Self {
            watch: Watch::new(request.acceleration.scale, holds_linux, expected)
                .with_menu_that_waits(request.iso.menu_waits),
            questions: Questions::new(&request.checks),
            screens: ScreenChecks::new(&request.checks)?,
            results: Vec::new(),
            done_since: None,
            notes: Vec::new(),
            consoles: Default::default(),
            serial_bytes: 0,
            terminal: Vec::new(),
            rows: Vec::new(),
            reader: ConsoleReader::default(),
            film: Filmstrip::new(FRAMES, FRAME_WIDTH),
            label: None,
            has_looked: false,
            last_picture: None,
            record_hidden: true,
            screen: ScreenId::of_picture(0),
            shell: Login::default(),
            shell_line: String::new(),
            console: Login::default(),
            menu_edit,
            edit_given_up: false,
            enter_pressed: false,
            menu_answered: false,
            entry: None,
            channel: None,
            wishes,
            pressing: 0,
        })
    }

    /// Whether every check has ended and there is a picture to show.
    pub(super) fn is_done(&self) -> bool {
        let asked = self.questions.are_done() || self.questions.asks_nothing();
        asked && self.screens.are_done() && self.has_looked
    }

    pub(super) fn wish(&self, wish: Wish) {
        // An eye that is gone ends the session by itself.
        drop(self.wishes.send(wish));
    }

    pub(super) fn press(&mut self, chords: Vec<Chord>) {
        self.pressing += 1;
        self.wish(Wish::Press(chords));
    }

    /// Whether the probe says hello on the second serial port.
    pub(super) fn says_hello(&mut self, bytes: &[u8]) -> bool {
        let text = format!("{}{}", self.shell_line, String::from_utf8_lossy(bytes));
        text.lines().any(|line| line.trim() == "hello")
    }

    /// Takes what a shell on the second serial port says; gives what to answer.
    pub(super) fn shell(&mut self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        for character in text.chars() {
            match character {
                '\n' | '\r' => self.shell_line.clear(),
                character if self.shell_line.len() < 4096 => self.shell_line.push(character),
                _ => {}
            }
        }
        let answer = self.shell.answer(&self.shell_line)?;
        self.shell_line.clear();
        if self.shell.is_done() && self.entry.is_none() {
            self.entry = Some(Channel::SerialGetty);
        }
        Some(answer)
    }
}
