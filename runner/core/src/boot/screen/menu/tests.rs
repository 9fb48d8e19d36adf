use super::*;
use crate::boot::screen::fixtures::{serial, vga};

const ARGUMENTS: &str = "boot=live components quiet splash locales=de_DE.UTF-8 keyboard-layouts=de \
                         timezone=Europe/Vienna findiso=";
const LIVE: [&str; 2] = ["Live system (amd64)", "Live system (fail-safe mode)"];

#[track_caller]
fn read(screen: &TextScreen) -> BootMenu {
    BootMenu::read(screen).unwrap_or_else(|| panic!("no menu on\n{}", screen.text()))
}

fn menu(loader: Loader, third: &str, selected: usize, countdown: Option<u32>) -> BootMenu {
    let entries = [LIVE[0], LIVE[1], third].map(str::to_owned).to_vec();
    BootMenu { loader, entries, selected: Some(selected), countdown, state: MenuState::Menu }
}

fn edited(screen: &TextScreen) -> (Loader, String) {
    match read(screen) {
        BootMenu { loader, state: MenuState::Editing { line }, .. } => (loader, line),
        other => panic!("not editing: {other:?}"),
    }
}

fn prompt(loader: Loader, line: &str) -> BootMenu {
    BootMenu::prompt(loader, line)
}

#[test]
fn isolinux_menu() {
    let expected = |selected, countdown| menu(Loader::Isolinux, "Memory test", selected, countdown);
    assert_eq!(read(&vga("isolinux-countdown")), expected(0, Some(600)));
    assert_eq!(read(&vga("isolinux-countdown-later")), expected(0, Some(597)));
    assert_eq!(read(&vga("isolinux-waiting")), expected(1, None));
}

#[test]
fn isolinux_editor() {
    let line = format!(".linux /live/vmlinuz {ARGUMENTS} initrd=/live/initrd.img");
    assert_eq!(edited(&vga("isolinux-edit")), (Loader::Isolinux, line.clone()));
    assert_eq!(edited(&vga("isolinux-edit-typed")), (Loader::Isolinux, line + " console=ttyS0"));
    assert_eq!(read(&vga("isolinux-edit")).entries.len(), 3);
}

#[test]
fn isolinux_prompt() {
    assert_eq!(read(&vga("isolinux-prompt")), prompt(Loader::Isolinux, ""));
    assert_eq!(read(&vga("isolinux-prompt-typed")), prompt(Loader::Isolinux, "live console=ttyS0"));
    let long = format!("live {ARGUMENTS} console=ttyS0");
    assert_eq!(read(&vga("isolinux-prompt-long")), prompt(Loader::Isolinux, &long));
    let longer = format!("{long} {ARGUMENTS}");
    assert_eq!(read(&vga("isolinux-prompt-longer")), prompt(Loader::Isolinux, &longer));
    assert_eq!(read(&vga("isolinux-no-kernel")), prompt(Loader::Isolinux, ""));
    assert_eq!(read(&vga("isolinux-no-config")), prompt(Loader::Isolinux, ""));
}

#[test]
fn grub_menu() {
    let expected = |selected, countdown| menu(Loader::Grub, "Utilities...", selected, countdown);
    assert_eq!(read(&vga("grub-countdown")), expected(0, Some(600)));
    assert_eq!(read(&vga("grub-countdown-later")), expected(0, Some(597)));
    assert_eq!(read(&vga("grub-waiting")), expected(1, None));
    assert_eq!(read(&serial("grub-serial-countdown")), expected(0, Some(600)));
    assert_eq!(read(&serial("grub-serial-waiting")), expected(1, None));
    assert_eq!(read(&serial("grub-uefi")), expected(0, Some(600)));
}

#[test]
fn grub_and_the_firmware_draw_over_each_other() {
    let expected = |countdown| BootMenu {
        loader: Loader::Grub,
        entries: ["trixie", "trixie (safe graphics)", "UEFI firmware settings"].map(str::to_owned).to_vec(),
        selected: Some(0),
        countdown,
        state: MenuState::Menu,
    };
    assert_eq!(read(&serial("grub-twice-countdown")), expected(Some(2)));
    assert_eq!(read(&serial("grub-twice-waiting")), expected(None));
}

#[test]
fn grub_editor() {
    let lines = |end: &str| {
        format!(
            "setparams '{}'\n\n  linux /live/vmlinuz {ARGUMENTS}{end}\n  initrd /live/initrd.img",
            LIVE[0]
        )
    };
    assert_eq!(edited(&vga("grub-edit")), (Loader::Grub, lines("")));
    assert_eq!(edited(&vga("grub-edit-typed")), (Loader::Grub, lines(" console=ttyS0")));
    assert_eq!(edited(&serial("grub-serial-edit")), (Loader::Grub, lines("")));
}

#[test]
fn grub_prompts() {
    assert_eq!(read(&vga("grub-prompt")), prompt(Loader::Grub, "ls /"));
    let long = format!("linux /live/vmlinuz {ARGUMENTS} console=ttyS0");
    assert_eq!(read(&vga("grub-prompt-long")), prompt(Loader::Grub, &long));
    assert_eq!(read(&vga("grub-rescue")), prompt(Loader::Grub, ""));
}

#[test]
fn systemd_boot() {
    let expected = |selected, countdown| BootMenu {
        loader: Loader::SystemdBoot,
        entries: [LIVE[1], LIVE[0], "Reboot Into Firmware Interface"].map(str::to_owned).to_vec(),
        selected: Some(selected),
        countdown,
        state: MenuState::Menu,
    };
    assert_eq!(read(&serial("systemd-boot-countdown")), expected(0, Some(60)));
    assert_eq!(read(&serial("systemd-boot-waiting")), expected(1, None));
    let (loader, line) = edited(&serial("systemd-boot-edit"));
    assert_eq!((loader, line.as_str()), (Loader::SystemdBoot, &ARGUMENTS[..98]));
    let (_, line) = edited(&serial("systemd-boot-edit-typed"));
    assert_eq!(
        line,
        "nts console=tty0 console=ttyS0,115200 systemd.debug_shell=ttyS1 console=tty0 console=ttyS0,115200"
    );
}

#[test]
fn other_screens_are_no_menus() {
    for name in ["nothing-bootable", "memtest", "panic"] {
        assert_eq!(BootMenu::read(&vga(name)), None, "{name}");
    }
    for bytes in [
        "boot: live\r\nLoading /live/vmlinuz... ok\r\n",
        "live login: ",
        // A dialog of an installer, and an editor's status line.
        "\x1b[44m\x1b[2J\x1b[5;10H\x1b[30;47m┌────────┤ Language ├────────┐\x1b[6;10H│ English            │",
        "\x1b[H\x1b[7m  GNU nano 7.2          New Buffer                                                      \x1b[m",
        // GRUB has drawn the frame, but no entry yet.
        "\x1b[2;25HGNU GRUB  version 2.12\x1b[4;2H+----------------+\x1b[5;2H|\x1b[5;19H|\x1b[6;2H+----------------+",
    ] {
        assert_eq!(BootMenu::read(&TextScreen::from_vt100(bytes.as_bytes())), None, "{bytes:?}");
    }
}

#[test]
fn seconds_are_counted_in_any_language() {
    for (line, expected) in [
        ("The highlighted entry will be executed automatically in 5s.", Some(5)),
        ("Der hervorgehobene Eintrag wird automatisch in 12s ausgeführt.", Some(12)),
        ("Automatic boot in 1 second...", Some(1)),
        ("Automatischer Start in 30 Sekunden", Some(30)),
        ("Boot in 60 s.", Some(60)),
        ("Press Ctrl-x or F10 to boot", None),
        ("disk0s1 starts", None),
        ("between 3 s and 5 s", None),
        ("99999999999999 seconds", None),
    ] {
        assert_eq!(seconds(line), expected, "{line:?}");
    }
}
