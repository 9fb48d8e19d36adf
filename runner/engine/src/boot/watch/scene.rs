//! What a machine shows from one look to the next, and whether anything on it moves.

use std::time::Duration;

use isokiln_core::boot::Phase;
use isokiln_core::boot::screen::{BootMenu, Condition, MenuState, Pulse, ScreenId, TextScreen, Vitals};
use tokio::time::Instant;

use crate::boot::eye::Look;

/// A boot menu without a countdown waits.
const MENU: Duration = Duration::from_secs(8);
/// What shows nothing new may be a menu that cannot be read; a key is pressed long before it counts as dead.
const UNKNOWN_MENU: Duration = Duration::from_secs(20);

/// Collects looks.
pub(super) struct Scene {
    pulse: Pulse,
    condition: Condition,
    /// Since when the machine draws on its screen and does nothing else.
    drawing: Option<Instant>,
    /// Since when a boot menu without countdown is on the screen.
    waiting: Option<Instant>,
    /// Since when nothing new is drawn or read, before a kernel runs.
    unmoved: Option<Instant>,
    screen: Option<ScreenId>,
    disk_bytes: u64,
    /// Whether a boot loader stands at its prompt.
    prompt: bool,
    /// What the boot loader has left on the screen.
    left: Option<TextScreen>,
    /// Whether the screen shows a dialog in text that is not the boot loader's.
    dialog: bool,
    /// Whether the screen shows a picture in which no text is read.
    graphics: bool,
    /// Whether something else was drawn on the screen since the kernel runs.
    drawn: bool,
    /// Whether the kernel has been seen running for a look.
    kernel_drew: bool,
    /// Whether the boot menu is configured to wait for a key.
    pub(super) menu_waits: bool,
    /// The boot menu's entries.
    pub(super) menu: Vec<String>,
}

impl Scene {
    /// For a machine on which nothing moves any more after so long.
    pub(super) fn new(still: Duration) -> Self {
        Self {
            pulse: Pulse::new(still.as_secs_f64()),
            condition: Condition::Working,
            drawing: None,
            waiting: None,
            unmoved: None,
            screen: None,
            disk_bytes: 0,
            prompt: false,
            left: None,
            dialog: false,
            graphics: false,
            drawn: false,
            kernel_drew: false,
            menu_waits: false,
            menu: Vec::new(),
        }
    }

    /// Takes a look at a machine that has come so far; tells whether it shows a boot menu.
    pub(super) fn look(&mut self, look: &Look, vitals: Vitals, furthest: Option<Phase>) -> bool {
        let now = Instant::now();
        let kernel = furthest >= Some(Phase::Kernel);
        // A menu in graphics cannot be read, but one that is to wait for a key shows nothing new and reads nothing.
        let redrawn = self.screen.as_ref() != Some(&vitals.screen);
        let moved = redrawn || look.disk_bytes != self.disk_bytes;
        (self.screen, self.disk_bytes) = (Some(vitals.screen.clone()), look.disk_bytes);
        let before_kernel = furthest.is_some() && !kernel;
        self.unmoved = if moved || !before_kernel { None } else { self.unmoved.or(Some(now)) };
        self.condition = self.pulse.push(vitals);
        let draws = self.condition == Condition::Changing;
        self.drawing = if draws { self.drawing.or(Some(now)) } else { None };
        self.graphics = look.text.is_none();
        // The first picture since the kernel runs may be of what was there before.
        if !self.kernel_drew {
            self.left.clone_from(&look.text);
        }
        self.dialog = look.text.as_ref().is_some_and(|text| {
            let left = self.left.as_ref().map(|left| text.without(left));
            left.as_ref().unwrap_or(text).shows_dialog()
        });
        self.drawn |= redrawn && self.kernel_drew;
        self.kernel_drew |= kernel;
        let menu = look.menu().filter(|_| !kernel);
        let state = menu.as_ref().filter(|menu| menu.countdown.is_none()).map(|menu| &menu.state);
        self.prompt = matches!(state, Some(MenuState::Prompt { .. }));
        let waits = matches!(state, Some(MenuState::Menu));
        self.waiting = if waits { self.waiting.or(Some(now)) } else { None };
        let Some(menu) = menu else { return false };
        if menu.entries.len() > self.menu.len() {
            self.menu = menu.entries;
        }
        true
    }

    /// Whether it has stood still for so long that a person would press a key.
    pub(super) fn waits_for_key(&self) -> bool {
        let since = if self.menu_waits { self.waiting.or(self.unmoved) } else { self.waiting };
        let menu = since.is_some_and(|since| since.elapsed() >= MENU);
        menu || self.unmoved.is_some_and(|since| since.elapsed() >= UNKNOWN_MENU)
    }

    /// Whether what waits is known to be a boot menu.
    pub(super) fn is_at_menu(&self) -> bool {
        self.shows_menu() || self.menu_waits
    }

    /// Whether a boot menu without a countdown is on the screen.
    pub(super) fn shows_menu(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether a boot loader stands at its prompt.
    pub(super) fn shows_prompt(&self) -> bool {
        self.prompt
    }

    /// Whether a dialog in text is on the screen.
    pub(super) fn shows_dialog(&self) -> bool {
        self.dialog
    }

    /// Whether the kernel, or what came after it, has drawn anything.
    pub(super) fn is_drawn(&self) -> bool {
        self.drawn
    }

    /// Whether the kernel, or what came after it, has drawn a picture in which no text is read.
    pub(super) fn is_painted(&self) -> bool {
        self.drawn && self.graphics
    }

    /// Whether the screen shows a menu that the boot loader has left on it.
    pub(super) fn shows_old_menu(&self) -> bool {
        let is_menu = |text: &TextScreen| BootMenu::read(text).is_some() || text.shows_dialog();
        !self.drawn && self.left.as_ref().is_some_and(is_menu)
    }

    /// Forgets that the machine stood still: a key was pressed.
    pub(super) fn key_pressed(&mut self) {
        self.waiting = None;
        self.unmoved = None;
    }

    /// Whether nothing moves any more.
    pub(super) fn is_still(&self) -> bool {
        matches!(self.condition, Condition::Still { .. })
    }

    /// Whether the machine has done nothing for so long but draw on its screen.
    pub(super) fn only_draws(&self, patience: Duration) -> bool {
        self.drawing.is_some_and(|since| since.elapsed() >= patience)
    }
}
