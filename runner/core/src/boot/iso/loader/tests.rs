use super::super::files::memory::Memory;
use super::*;

/// What debian's live-build writes for isolinux, in short.
const LIVE_BUILD: [(&str, &str); 4] = [
    (
        "/isolinux/isolinux.cfg",
        "# D-I config version 2.0\ninclude menu.cfg\ndefault vesamenu.c32\nprompt 0\ntimeout 0\n",
    ),
    (
        "/isolinux/menu.cfg",
        "menu hshift 0\nmenu width 82\n\nmenu title Boot menu\ninclude stdmenu.cfg\ninclude live.cfg\n\
        menu begin utilities\n\tmenu label ^Utilities\n\tmenu title Utilities\n\tlabel mainmenu\n\t\tmenu label ^Back..\n\
        \t\tmenu exit\n\tlabel hdt\n\t\tcom32 hdt.c32\nmenu end\nmenu clear\n",
    ),
    ("/isolinux/stdmenu.cfg", "menu background splash.png\nmenu color title * #FFFFFFFF *\n"),
    (
        "/isolinux/live.cfg",
        "label live-amd64\n\tmenu label ^Live system (amd64)\n\tmenu default\n\tlinux /live/vmlinuz-6.12\n\
        \tinitrd /live/initrd.img-6.12\n\tappend boot=live components quiet splash findiso=${iso_path}\n\n\
        label live-amd64-failsafe\n\tmenu label Live system (amd64 fail-safe mode)\n\tlinux /live/vmlinuz-6.12\n\
        \tinitrd /live/initrd.img-6.12\n\tappend boot=live components memtest noapic\n",
    ),
];

fn on(files: &[(&str, &str)]) -> (Vec<LoaderConfig>, Vec<String>) {
    let mut problems = Vec::new();
    let configs = on_iso(&mut Memory::of(files), &mut problems);
    (configs, problems)
}

fn one(path: &str, text: &str) -> LoaderConfig {
    let (mut configs, problems) = on(&[(path, text)]);
    assert_eq!((configs.len(), problems), (1, vec![]));
    configs.remove(0)
}

fn titles(config: &LoaderConfig) -> Vec<&str> {
    config.entries.iter().map(|entry| entry.title.as_str()).collect()
}

#[test]
fn isolinux_of_live_build_waits_for_ever() {
    let (configs, problems) = on(&LIVE_BUILD);
    assert_eq!(problems, Vec::<String>::new());
    let [config] = configs.as_slice() else { panic!("{configs:?}") };
    assert_eq!((config.timeout, config.default, config.loader), (None, Some(0), Loader::Isolinux));
    let all = [
        "Live system (amd64)",
        "Live system (amd64 fail-safe mode)",
        "Utilities > Back..",
        "Utilities > hdt",
    ];
    assert_eq!(titles(config), all);
    let live = &config.entries[0];
    assert_eq!(live.kernel.as_deref(), Some("/live/vmlinuz-6.12"));
    assert_eq!(live.initrds, ["/live/initrd.img-6.12"]);
    assert_eq!(live.arguments, "boot=live components quiet splash findiso=${iso_path}");
    assert_eq!(config.entries[3].kernel.as_deref(), Some("/isolinux/hdt.c32"));
}

#[test]
fn isolinux_finds_the_entry_that_boots_by_itself() {
    let text = "DEFAULT install\nTIMEOUT 55\nPROMPT 1\nLABEL memtest\n  KERNEL mt86plus\nLABEL install\n\
                KERNEL /install.amd/vmlinuz\n  APPEND vga=788 initrd=/install.amd/initrd.gz,more.gz --- quiet\n";
    let config = one("/isolinux/isolinux.cfg", text);
    assert_eq!((config.default, config.timeout), (Some(1), Some(6)));
    assert_eq!(config.entries[1].initrds, ["/install.amd/initrd.gz", "/isolinux/more.gz"]);
    assert_eq!(config.entries[1].arguments, "vga=788 --- quiet");
    assert_eq!(config.entries[0].kernel.as_deref(), Some("/isolinux/mt86plus"));
    // No menu and no prompt: at once. This is ipxe.iso.
    let text = "SAY iPXE ISO boot image\nTIMEOUT 0\nDEFAULT ipxe.lkrn\nLABEL ipxe.lkrn\n KERNEL ipxe.krn\n";
    let config = one("/isolinux.cfg", text);
    assert_eq!((config.default, config.timeout), (Some(0), Some(0)));
    assert_eq!(config.entries[0].kernel.as_deref(), Some("/ipxe.krn"));
    // What time-out boots need not be what is marked.
    let text = "ui menu.c32\ntimeout 30\nontimeout b\nlabel a\nmenu default\nlabel b\ntext help\nlabel not\nendtext\n";
    let config = one("/syslinux/syslinux.cfg", text);
    assert_eq!((config.default, config.timeout, config.entries.len()), (Some(1), Some(3), 2));
    let marked = one("/isolinux.cfg", "default x\nlabel x\nlabel y\nmenu default\nprompt 1\n");
    assert_eq!((marked.default, marked.timeout), (Some(1), None));
}

#[test]
fn grub_follows_sources_variables_and_conditions() {
    let (configs, problems) = on(&[
        (
            "/boot/grub/grub.cfg",
            "source /boot/grub/config.cfg\n\n# Live boot\n\
            menuentry \"Live system (amd64)\" --hotkey=l {\n\tlinux\t/live/vmlinuz boot=live quiet ${loopback}\n\
            \tinitrd\t/live/initrd.img /early.cpio\n}\nif [ \"${grub_platform}\" = \"efi\" ]; then\n\
            menuentry 'Firmware' --id fw { fwsetup; }\nfi\n\
            submenu 'Advanced ...' --class x {\n source $prefix/more.cfg\n}\n",
        ),
        (
            "/boot/grub/config.cfg",
            "set default=0\nset timeout=5\nif [ x$feature_default_font_path = xy ] ; then\n\
            font=unicode\nelse\n  set default=1\nfi\nif loadfont $font ; then set gfxmode=800x600; insmod gfxterm; fi\n",
        ),
        (
            "/boot/grub/more.cfg",
            "menuentry \"Fail-safe\" {\n linux ($root)/live/vmlinuz boot=live memtest \\\n  noapic\n}\n",
        ),
    ]);
    assert_eq!(problems, Vec::<String>::new());
    let [config] = configs.as_slice() else { panic!("{configs:?}") };
    assert_eq!(titles(config), ["Live system (amd64)", "Firmware", "Advanced ... > Fail-safe"]);
    assert_eq!((config.default, config.timeout), (Some(0), Some(5)));
    assert_eq!(config.entries[0].arguments, "boot=live quiet ");
    assert_eq!(config.entries[0].initrds, ["/live/initrd.img", "/early.cpio"]);
    assert_eq!(config.entries[1].kernel, None);
    let safe = &config.entries[2];
    assert_eq!(
        (safe.kernel.as_deref(), safe.arguments.as_str()),
        (Some("/live/vmlinuz"), "boot=live memtest noapic")
    );
}

#[test]
fn grub_chooses_by_number_title_and_id() {
    let menu = "menuentry 'One' $menuentry_id_option 'first' { linux /a }\nsubmenu 'Sub' --id s {\n\
                menuentry Two { linux /b }\n menuentry Three --id=third { linux /c }\n}\nmenuentry Four { linux /d }\n";
    let default = |settings: &str| one("/boot/grub/grub.cfg", &format!("{settings}\n{menu}")).default;
    for (setting, place) in [
        ("", 0),
        ("set default=2", 3),
        ("set default=first", 0),
        ("set default=\"Four\"", 3),
        ("set default='1>1'", 2),
        ("set default='s>third'", 2),
        ("set default=1", 1),
        ("set default=nosuch", 0),
        ("set default=99", 0),
    ] {
        assert_eq!(default(setting), Some(place), "{setting}");
    }
    let timeout = |text: &str| one("/boot/grub/grub.cfg", text).timeout;
    assert_eq!([timeout(menu), timeout("set timeout=-1"), timeout("set timeout=0")], [None, None, Some(0)]);
}

#[test]
fn what_lies_on_other_disks_says_so() {
    let text = "menuentry GNU { set root=(hd0,msdos1)\n linux /vmlinuz root=/dev/sda1\n initrd /initrd.img\n}\n\
                menuentry Chain { chainloader (hd1)+1 }\nmenuentry CD { search --set=root --file /x\n linux /k }\n";
    let config = one("/boot/grub/grub.cfg", text);
    assert_eq!(config.entries[0].kernel.as_deref(), Some("(hd0,msdos1)/vmlinuz"));
    assert_eq!(config.entries[0].initrds, ["(hd0,msdos1)/initrd.img"]);
    assert_eq!(config.entries[1].kernel.as_deref(), Some("(hd1)+1"));
    assert_eq!(config.entries[2].kernel.as_deref(), Some("/k"));
}

#[test]
fn a_stub_on_the_esp_leads_to_the_iso() {
    let mut esp = Memory::of(&[(
        "/EFI/debian/grub.cfg",
        "search --file --set=root /.disk/info\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n",
    )]);
    let mut iso =
        Memory::of(&[("/boot/grub/grub.cfg", "set timeout=3\nmenuentry Live { linux /live/vmlinuz }\n")]);
    let mut problems = Vec::new();
    let configs = on_esp(&mut esp, &mut iso, &mut problems);
    let [config] = configs.as_slice() else { panic!("{configs:?} {problems:?}") };
    assert_eq!((config.path.as_str(), config.timeout), ("esp:/EFI/debian/grub.cfg", Some(3)));
    assert_eq!(titles(config), ["Live"]);
}

#[test]
fn systemd_boot_has_a_file_for_each_entry() {
    let (configs, _) = on(&[
        ("/loader/loader.conf", "timeout 15\ndefault 01-archiso-x86_64-linux.conf\n"),
        (
            "/loader/entries/01-archiso-x86_64-linux.conf",
            "title    Arch Linux install medium\nlinux /arch/boot/vmlinuz\n\
            initrd /arch/boot/initramfs.img\noptions archisobasedir=arch archisolabel=ARCH\n",
        ),
        ("/loader/entries/02-shell.conf", "title Shell\nefi /shellx64.efi\n"),
    ]);
    let [config] = configs.as_slice() else { panic!("{configs:?}") };
    assert_eq!((config.loader, config.default, config.timeout), (Loader::SystemdBoot, Some(0), Some(15)));
    assert_eq!(config.entries[0].arguments, "archisobasedir=arch archisolabel=ARCH");
    assert_eq!(config.entries[1].kernel.as_deref(), Some("/shellx64.efi"));
}

#[test]
fn a_menu_may_be_locked() {
    let editable = |path: &str, text: &str| one(path, text).editable;
    let (isolinux, grub) = ("/isolinux/isolinux.cfg", "/boot/grub/grub.cfg");
    let locked = [
        editable(isolinux, "allowoptions 0\nlabel a\nlinux /x\n"),
        editable(grub, "set superusers=root\nmenuentry A { linux /x }\n"),
    ];
    assert_eq!(locked, [false; 2]);
    assert!(editable(isolinux, "allowoptions 1\nlabel a\nlinux /x\n"));
    assert!(editable(grub, "set superusers=\"\"\nmenuentry A { linux /x }\n"));
    let systemd_boot = |conf: &str| {
        on(&[("/loader/loader.conf", conf), ("/loader/entries/a.conf", "linux /x\n")]).0[0].editable
    };
    assert_eq!(
        [systemd_boot("editor no\n"), systemd_boot("editor yes\n"), systemd_boot("")],
        [false, true, true]
    );
}

#[test]
fn circles_and_missing_files_end_and_are_told() {
    let (configs, problems) = on(&[
        ("/isolinux/isolinux.cfg", "include isolinux.cfg\ninclude gone.cfg\ninclude gone.cfg\nlabel a\n"),
        (
            "/boot/grub/grub.cfg",
            "source /boot/grub/grub.cfg\nsource /boot/grub/b.cfg\nmenuentry A { linux /x }\n",
        ),
        ("/boot/grub/b.cfg", "source /boot/grub/grub.cfg\nconfigfile /boot/grub/grub.cfg\n"),
    ]);
    assert_eq!(configs.len(), 2);
    assert!(
        problems.iter().any(|problem| problem.contains("/isolinux/isolinux.cfg includes /isolinux/gone.cfg"))
    );
    assert!(problems.len() <= 3, "{problems:?}");
    assert!(configs.iter().all(|config| config.entries.len() <= MAX_ENTRIES));
}

#[test]
fn deep_and_broken_scripts_end() {
    for text in [
        "{ ",
        "if ",
        "for ",
        "menuentry a { ",
        "submenu {",
        "}",
        "fi\n",
        "\"",
        "'",
        "${",
        "[ ! ",
        "function x {",
    ] {
        let (configs, _) = on(&[("/boot/grub/grub.cfg", &text.repeat(20_000))]);
        assert!(configs[0].entries.len() <= MAX_ENTRIES, "{text}");
    }
    one("/isolinux.cfg", &"menu begin\nlabel x\n".repeat(20_000));
}

#[test]
fn variables_that_double_and_words_without_end_are_cut() {
    let bomb = format!("set a=xxxxxxxxxx\n{}", "set a=$a$a\n".repeat(40));
    let entries =
        format!("menuentry $a {{ linux /k {}\n initrd {} }}\n", "$a ".repeat(50), "/i ".repeat(100))
            .repeat(400);
    let (configs, problems) = on(&[("/boot/grub/grub.cfg", &(bomb + &entries))]);
    assert_eq!(problems, ["/boot/grub/grub.cfg has words that are too long; they are cut"]);
    let entry = &configs[0].entries[0];
    assert_eq!((entry.title.len(), entry.initrds.len()), (MAX_TITLE, MAX_INITRDS));
    let bytes: usize = configs[0].entries.iter().map(|entry| entry.arguments.len()).sum();
    assert!(bytes < 10 << 20, "{bytes}");
    // A condition that is turned around as often as a file has room for.
    one("/boot/grub/grub.cfg", &format!("if [ {}a ]; then\nfi\n", "! ".repeat(60_000)));
    let list = "initrd=a,".repeat(100);
    let config = one(
        "/isolinux.cfg",
        &format!("menu begin {}\nlabel l\n initrd {list}\n append {list}\n", "t".repeat(9999)),
    );
    assert_eq!(
        (config.entries[0].title.len(), config.entries[0].initrds.len()),
        (MAX_TITLE + 4, MAX_INITRDS)
    );
}

#[test]
fn any_text_is_read_without_harm() {
    use proptest::prelude::*;
    let word = prop::sample::select(vec![
        "menuentry",
        "submenu",
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "{",
        "}",
        "[",
        "]",
        "source",
        "/boot/grub/grub.cfg",
        "set",
        "a=$b",
        "'x",
        "\"y",
        "\n",
        ";",
        "\\",
        "#",
        "linux",
        "--id",
        "label",
        "append",
        "menu",
        "begin",
        "end",
        "default",
        "timeout",
        "for",
        "do",
        "done",
        "function",
        "\u{fffd}",
    ]);
    proptest!(ProptestConfig::with_cases(500), |(words in prop::collection::vec(word, 0..80))| {
        let text = words.join(" ");
        on(&[("/boot/grub/grub.cfg", &text), ("/isolinux/isolinux.cfg", &text)]);
    });
}
