//! Adding kernel arguments at a boot menu, as a person would: open the entry, type, read what stands there, start.

use super::keys::{Chord, chords};
use super::screen::{BootMenu, Loader, MenuState};

/// Kernel arguments that make systemd offer root's shell on the second serial port, and the kernel speak on the first
/// (systemd-debug-generator(8)).
const ARGUMENTS: &str = " systemd.debug_shell=ttyS1 console=tty0 console=ttyS0,115200";
/// How often the menu is looked at before an edit that does not show is given up.
const PATIENCE: u32 = 10;

/// An edit in progress.
#[derive(Debug, Default)]
pub struct MenuEdit {
    step: Step,
    /// Looks since the step began.
    looks: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Open,
    Type,
    Verify,
    Done,
    GivenUp,
}

impl MenuEdit {
    /// Whether the menu was seen and keys were pressed at it.
    pub fn has_begun(&self) -> bool {
        self.step != Step::Open
    }

    /// Whether the edited entry was started.
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Whether the menu did not do as it was told; the entry was left as it is.
    pub fn is_given_up(&self) -> bool {
        self.step == Step::GivenUp
    }

    /// What to press now that the screen shows this menu, or none that can be read; `None` to look again.
    pub fn next(&mut self, menu: Option<&BootMenu>) -> Option<Vec<Chord>> {
        if !self.has_begun() && menu.is_none() {
            return None;
        }
        self.looks += 1;
        let (step, keys) = match (self.step, menu.map(|menu| (menu.loader, &menu.state))) {
            (Step::Open, Some((loader, MenuState::Menu))) => (Step::Type, vec![vec![open_key(loader)]]),
            (Step::Type, Some((loader, MenuState::Editing { line }))) => {
                (Step::Verify, [to_end(loader, line)?, chords(ARGUMENTS)?].concat())
            }
            (Step::Verify, Some((loader, MenuState::Editing { line }))) if is_typed(loader, line) => {
                (Step::Done, vec![start_key(loader)])
            }
            (Step::Done | Step::GivenUp, _) => return None,
            _ if self.looks > PATIENCE => (Step::GivenUp, vec![vec!["esc"]]),
            _ => return None,
        };
        self.step = step;
        self.looks = 0;
        Some(keys)
    }
}

/// The key that opens the selected entry for editing.
fn open_key(loader: Loader) -> &'static str {
    match loader {
        Loader::Isolinux => "tab",
        Loader::Grub | Loader::SystemdBoot => "e",
    }
}

/// The keys from where the editor opens to the end of the kernel's arguments.
fn to_end(loader: Loader, text: &str) -> Option<Vec<Chord>> {
    Some(match loader {
        Loader::Isolinux => Vec::new(),
        Loader::Grub => {
            let mut keys = vec![vec!["down"]; linux_line(text)?];
            keys.push(vec!["end"]);
            keys
        }
        Loader::SystemdBoot => vec![vec!["end"]],
    })
}

/// The keys that start what was edited.
fn start_key(loader: Loader) -> Chord {
    match loader {
        Loader::Isolinux | Loader::SystemdBoot => vec!["ret"],
        Loader::Grub => vec!["ctrl", "x"],
    }
}

/// Which line of GRUB's editor starts the kernel.
fn linux_line(text: &str) -> Option<usize> {
    text.lines().position(|line| line.trim_start().starts_with("linux"))
}

/// Whether what was typed stands where it belongs, and nothing else.
fn is_typed(loader: Loader, text: &str) -> bool {
    let line = match loader {
        Loader::Grub => linux_line(text).and_then(|index| text.lines().nth(index)),
        Loader::Isolinux | Loader::SystemdBoot => Some(text),
    };
    line.is_some_and(|line| line.trim_end().ends_with(ARGUMENTS.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu(loader: Loader, state: MenuState) -> BootMenu {
        BootMenu { loader, entries: vec!["Live".into()], selected: Some(0), countdown: None, state }
    }

    fn editing(line: &str) -> MenuState {
        MenuState::Editing { line: line.to_owned() }
    }

    #[test]
    fn isolinux_is_edited_and_started_only_when_it_shows_what_was_typed() {
        let isolinux = |state| menu(Loader::Isolinux, state);
        let mut edit = MenuEdit::default();
        assert_eq!(edit.next(Some(&isolinux(MenuState::Menu))), Some(vec![vec!["tab"]]));
        assert_eq!(edit.next(Some(&isolinux(MenuState::Menu))), None);
        let line = ".linux /live/vmlinuz initrd=/live/initrd.img boot=live";
        let typed = edit.next(Some(&isolinux(editing(line)))).unwrap();
        assert_eq!(Some(typed), chords(ARGUMENTS));
        assert_eq!(edit.next(Some(&isolinux(editing(&format!("{line} systemd.deb"))))), None);
        let whole = format!("{line}{ARGUMENTS}");
        assert_eq!(edit.next(Some(&isolinux(editing(&whole)))), Some(vec![vec!["ret"]]));
        assert!(edit.is_done());
        assert_eq!(edit.next(Some(&isolinux(MenuState::Menu))), None);
    }

    #[test]
    fn grub_is_edited_in_the_line_of_the_kernel() {
        let grub = |state| menu(Loader::Grub, state);
        let mut edit = MenuEdit::default();
        assert_eq!(edit.next(Some(&grub(MenuState::Menu))), Some(vec![vec!["e"]]));
        let text = "setparams 'Live'\n\n  linux /live/vmlinuz boot=live\n  initrd /live/initrd.img\n";
        let keys = edit.next(Some(&grub(editing(text)))).unwrap();
        assert_eq!(keys[..3], [vec!["down"], vec!["down"], vec!["end"]]);
        let whole = text.replace("boot=live\n", &format!("boot=live{ARGUMENTS}\n"));
        assert_eq!(edit.next(Some(&grub(editing(&whole)))), Some(vec![vec!["ctrl", "x"]]));
    }

    #[test]
    fn systemd_boot_is_edited_at_the_end_of_its_line() {
        let systemd_boot = |state| menu(Loader::SystemdBoot, state);
        let mut edit = MenuEdit::default();
        assert_eq!(edit.next(None), None);
        assert_eq!(edit.next(Some(&systemd_boot(MenuState::Menu))), Some(vec![vec!["e"]]));
        let keys = edit.next(Some(&systemd_boot(editing("boot=live quiet")))).unwrap();
        assert_eq!(keys[..2], [vec!["end"], vec!["spc"]]);
        let whole = format!("boot=live quiet{ARGUMENTS}");
        assert_eq!(edit.next(Some(&systemd_boot(editing(&whole)))), Some(vec![vec!["ret"]]));
    }

    #[test]
    fn a_menu_that_cannot_be_read_any_more_is_left() {
        let mut edit = MenuEdit::default();
        edit.next(Some(&menu(Loader::Grub, MenuState::Menu)));
        let keys: Vec<_> = (0..20).filter_map(|_| edit.next(None)).collect();
        assert_eq!(keys, [vec![vec!["esc"]]]);
        assert!(edit.is_given_up());
    }

    #[test]
    fn a_menu_that_does_not_show_it_is_left() {
        let mut edit = MenuEdit::default();
        edit.next(Some(&menu(Loader::Isolinux, MenuState::Menu)));
        edit.next(Some(&menu(Loader::Isolinux, editing("x"))));
        let mut keys = Vec::new();
        for _ in 0..20 {
            keys.extend(edit.next(Some(&menu(Loader::Isolinux, editing("x systemd.deug_shell")))));
        }
        assert_eq!(keys, [vec![vec!["esc"]]]);
        assert!(edit.is_given_up() && !edit.is_done());
    }
}
