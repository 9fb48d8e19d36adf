use std::borrow::Cow;

use proptest::prelude::*;

use super::super::{Excerpt, ExcerptLine};
use super::*;

/// Random letters and digits, made so that no scanner takes this file for a leak.
fn random(length: usize) -> String {
    "aB3dE5gH7jK9mN1pQ2sT4vW6".chars().cycle().take(length).collect()
}

#[test]
fn what_is_private_goes() {
    let r = random(40);
    let cases = [
        ("Get https://me:hunter2@mirror.example/x".to_owned(), "hunter2"),
        ("git clone https://oauth2@git.example/x".into(), "oauth2"),
        (format!("> Authorization: Bearer {r}"), &r[..12]),
        ("authorization: basic aGVsbG86d29ybGQ=".into(), "aGVs"),
        (format!("using bearer {r}"), &r[..12]),
        ("MISTRAL_API_KEY=abc".into(), "=abc"),
        ("export GITHUB_TOKEN='a b c'".into(), "a b"),
        ("+ PASSWORD=hunter2 ./run".into(), "hunter2"),
        ("DB_PASS=hunter2".into(), "hunter2"),
        ("curl --token=hunter2 x".into(), "hunter2"),
        ("tool --api-key hunter2 x".into(), "hunter2"),
        (r#"{"client_secret": "hunter2"}"#.into(), "hunter2"),
        ("https://x.example/a?key=hunter2&b=1".into(), "hunter2"),
        ("Password: hunter".into(), "hunter"),
        ("root:toor42 | chpasswd".into(), "toor42"),
        ("echo 'live:toor42' | chpasswd".into(), "toor42"),
        ("curl -u me:hunter2 https://x".into(), "hunter2"),
        ("live:$6$saltsalt$abcdefgh/ijklm.nop:19000:0".into(), "saltsalt"),
        (format!("with sk-{}", random(24)), "aB3dE"),
        (format!("with sk-ant-api03-{}", random(24)), "aB3dE"),
        (format!("with gsk_{}", random(24)), "aB3dE"),
        (format!("with xai-{}", random(24)), "aB3dE"),
        (format!("with AIza{}", random(35)), "aB3dE"),
        (format!("with ghp_{}", random(36)), "aB3dE"),
        (format!("with github_pat_{}", random(36)), "aB3dE"),
        (format!("with glpat-{}", random(20)), "aB3dE"),
        ("with AKIA0123456789ABCDEF".into(), "0123456789"),
        (format!("with eyJ{}.{}.{}", random(20), random(20), random(20)), "aB3dE"),
        (format!("the signing key is {r}"), "aB3dE"),
        (format!("secret = {}", "0123456789abcdef".repeat(4)), "0123456789"),
        ("Maintainer: Jane <jane.doe@example.org>".into(), "jane"),
        ("cp: /home/jane/x: no such file".into(), "jane"),
        ("file:///Users/jane/x".into(), "jane"),
        ("cat: /root/.netrc".into(), "/root"),
        ("cd /root".into(), "/root"),
    ];
    for (text, secret) in cases {
        let clean = redact(&text);
        assert!(!clean.contains(secret), "{text:?} became {clean:?}");
        assert_eq!(redact(&clean), clean, "{text:?} changes twice");
    }
}

#[test]
fn the_rest_of_the_line_stays() {
    for (text, clean) in [
        ("Get https://me:pw@mirror.example/x 404", "Get https://[credentials]@mirror.example/x 404"),
        ("+ PASSWORD=hunter2 ./run", "+ PASSWORD=[secret] ./run"),
        ("https://x.example/a?key=hunter2&b=1", "https://x.example/a?key=[secret]&b=1"),
        ("by <a@b.example>, (c@d.example)", "by <[e-mail]>, ([e-mail])"),
        ("/home/jane/a: /home/jane: x", "/home/[user]/a: /home/[user]: x"),
        ("/usr/bin:/root/bin /root", "/usr/bin:/home/[user]/bin /home/[user]"),
    ] {
        assert_eq!(redact(text), clean);
    }
}

#[test]
fn what_a_diagnosis_needs_stays() {
    let hex = "0123456789abcdef".repeat(4);
    for text in [
        format!("digest sha256:{hex} does not match"),
        format!("SHA256:{hex} [weak]"),
        "The following signatures couldn't be verified: NO_PUBKEY 0E98404D386FA1D9".into(),
        "gpg: using RSA key B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8".into(),
        "Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 0123456789ABCDEF01234567".into(),
        "key ED541312A33F1128F10B1C6C54404762BBB6E853 expired".into(),
        "Setting up linux-image-6.12.41+deb13-amd64 (6.12.41-1) ...".into(),
        "libssl3t64 : Depends: libc6 (>= 2.34) but 2.31-13+deb11u11 is to be installed".into(),
        "passwd: password updated successfully".into(),
        "passwd: password expiry information changed.".into(),
        "syntax error: unexpected token: foo".into(),
        "bash: syntax error near unexpected token `('".into(),
        "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg".into(),
        "SIGNING_KEY=/etc/keys/db.key".into(),
        "Started getty@tty1.service - Getty on tty1.".into(),
        "user@1000.service: Failed with result 'exit-code'".into(),
        "max_tokens=4096".into(),
        "/rootfs/etc /chroot/root/x /dev/root: no such device".into(),
        "Installing basic configuration-packages".into(),
        "E: Failed to fetch http://deb.example/debian/pool/main/k/keyutils/libkeyutils1_1.6.3-4_amd64.deb".into(),
        "W: token bucket-filter-2.0 not found".into(),
        "unable to find key for linux-headers-6.12.41+deb13-common-unsigned".into(),
        "task-ssh-server task-german-desktop-0123456789abcdef".into(),
    ] {
        let same = redact(&text);
        assert_eq!(same, text);
        assert!(matches!(same, Cow::Borrowed(_)));
    }
}

#[test]
fn a_private_key_goes_as_a_whole() {
    let (begin, end) = ("-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----");
    let body = random(64);
    let text = format!("a\n{begin}\n{body}\n{body}\n{end}\nb");
    assert_eq!(redact(&text), "a\n[private key]\nb");
    assert_eq!(redact(&format!("{begin}\n{body}")), "[private key]");
    let lines = |texts: &[&str]| Excerpt {
        lines: texts.iter().map(|text| ExcerptLine { number: 1, text: (*text).into(), times: 1 }).collect(),
        total: 9,
    };
    let clean = lines(&["a", begin, &body, &body, end, "E: failed to fetch"]).redacted();
    assert!(!clean.render().contains(&body[..8]) && clean.render().contains("E: failed to fetch"));
    let cut = lines(&[begin, &body, "E: failed to fetch x", "next"]).redacted();
    assert_eq!(cut.lines[2].text, "E: failed to fetch x");
    assert!(!cut.render().contains(&body[..8]));
    assert_eq!(cut.redacted(), cut);
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        Just("/home/jane".to_owned()),
        Just("/root".to_owned()),
        Just("https://a:b@c.example/".to_owned()),
        Just("password: ".to_owned()),
        Just("API_KEY=".to_owned()),
        Just("token ".to_owned()),
        Just("\"secret\": ".to_owned()),
        Just("a@b.example".to_owned()),
        Just("[secret]".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        Just(random(40)),
        Just("\n".to_owned()),
    ]
}

proptest! {
    #[test]
    fn redacting_twice_changes_nothing(pieces in proptest::collection::vec(piece(), 0..12)) {
        let text = pieces.concat();
        let once = redact(&text).into_owned();
        prop_assert_eq!(redact(&once), once.clone());
    }

    #[test]
    fn any_text_is_taken(text in "\\PC{0,80}") {
        let once = redact(&text).into_owned();
        prop_assert_eq!(redact(&once), once.clone());
    }
}
