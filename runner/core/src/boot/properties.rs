//! What holds for the readers of consoles and the typists whatever a machine says.

use proptest::prelude::*;

use super::screen::{BootMenu, Loader, MenuState};
use super::{ConsoleReader, Login, MenuEdit, Phase, Sighting, hello_command};

/// Bits of what machines say, and noise.
fn words() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[    0.000000] Linux version 6.12",
        "[    1.2] Kernel panic - not syncing: ",
        "VFS: Unable to mount root fs",
        "(initramfs) ",
        "BdsDxe: failed to load Boot0001 \"UEFI DVD\"",
        ": Access Denied",
        "live login: ",
        "Password: ",
        "Login incorrect",
        "root@live:~# ",
        "user@live:~$ ",
        "GNU GRUB",
        "\r\n",
        "\n",
        "\x1b[2;25H",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => "[ -~]{0,12}"]
}

const TYPED: &str = " systemd.debug_shell=ttyS1 console=tty0 console=ttyS0,115200";

fn menus() -> impl Strategy<Value = BootMenu> {
    let mistyped = TYPED.replace("debug", "deug");
    let isolinux = ["", TYPED, &mistyped, &TYPED[..TYPED.len() - 1]];
    let isolinux = isolinux.map(|end| (Loader::Isolinux, format!(".linux /live/vmlinuz boot=live{end}")));
    let grub = [("", ""), (TYPED, ""), ("", TYPED), (mistyped.as_str(), "")];
    let grub = grub.map(|(kernel, initrd)| {
        (Loader::Grub, format!("setparams 'x'\n  linux /vmlinuz{kernel}\n  initrd /initrd{initrd}\n"))
    });
    let lines: Vec<_> = isolinux.into_iter().chain(grub).collect();
    (prop::sample::select(lines), 0..4).prop_map(|((loader, line), state)| BootMenu {
        loader,
        entries: vec!["Live".to_owned()],
        selected: Some(0),
        countdown: None,
        state: match state {
            0 => MenuState::Menu,
            1 => MenuState::Prompt { line },
            _ => MenuState::Editing { line },
        },
    })
}

proptest! {
    #[test]
    fn how_a_console_is_read_does_not_depend_on_how_it_comes(
        said in prop::collection::vec(words(), 0..40),
        cuts in prop::collection::vec(1_usize..30, 1..20),
    ) {
        let bytes = said.concat().into_bytes();
        let mut whole = ConsoleReader::default();
        let expected = whole.feed(&bytes);
        let mut pieces = ConsoleReader::default();
        let mut found = Vec::new();
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            found.extend(pieces.feed(piece));
            rest = later;
        }
        // A prompt is what the console stops at.
        let prompt = Sighting::Entered(Phase::MultiUser);
        let kinds = |sightings: &[(Sighting, String)]| {
            let sightings = sightings.iter().filter(|(sighting, _)| *sighting != prompt);
            let mut kinds: Vec<_> = sightings.map(|(sighting, _)| format!("{sighting:?}")).collect();
            kinds.sort();
            kinds
        };
        prop_assert_eq!(kinds(&found), kinds(&expected));
        prop_assert_eq!(pieces.recent(), whole.recent());
    }

    #[test]
    fn no_bytes_are_too_much_for_a_console_reader(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 0..8),
    ) {
        let mut reader = ConsoleReader::default();
        for chunk in &chunks {
            reader.feed(chunk);
        }
        let kept = reader.recent();
        prop_assert!(kept.len() <= 13 && kept.iter().all(|line| line.len() <= 4100), "{}", kept.len());
    }

    #[test]
    fn nothing_is_typed_at_a_console_once_the_probe_was_started(
        lines in prop::collection::vec(words(), 0..60),
    ) {
        let mut login = Login::default();
        let (mut started, mut users) = (0, 0);
        for line in &lines {
            let was_done = login.is_done();
            let answer = login.answer(line);
            prop_assert!(!(was_done && answer.is_some()), "{answer:?} after the end");
            let answer = answer.unwrap_or_default();
            started += usize::from(answer.contains(hello_command()));
            users += usize::from(!answer.is_empty() && line.trim().ends_with("login:"));
        }
        prop_assert!(started <= 1 && users < 20);
        prop_assert_eq!(started == 1, login.is_done());
    }

    #[test]
    fn an_edited_entry_is_started_only_where_the_kernels_line_ends_with_what_was_typed(
        shown in prop::collection::vec(menus(), 0..60),
    ) {
        let mut edit = MenuEdit::default();
        let mut over = false;
        for menu in &shown {
            let keys = edit.next(Some(menu)).unwrap_or_default();
            prop_assert!(!over || keys.is_empty(), "{keys:?} after the end");
            over = edit.is_done() || edit.is_given_up();
            let starts = keys.contains(&vec!["ret"]) || keys.contains(&vec!["ctrl", "x"]);
            prop_assert_eq!(starts, edit.is_done() && !keys.is_empty());
            if starts {
                let MenuState::Editing { line } = &menu.state else { panic!("started at {menu:?}") };
                let kernel = line.lines().find(|line| line.contains("linux")).unwrap_or_default();
                prop_assert!(kernel.ends_with(TYPED), "{line:?}");
            }
        }
    }
}
