//! `isokiln kinds`.

use isokiln_core::kind::{Kind, OptionSpec, Privilege, RootfsUse};
use isokiln_core::suggest::nearest;
use isokiln_engine::kinds::Kinds as KindSet;
use isokiln_engine::run::RunError;
use serde_json::{Value, json};

use crate::args::{Global, Kinds};
use crate::{output, words};

pub(super) fn run(global: &Global, args: &Kinds) -> Result<u8, RunError> {
    let kinds = match &args.pipeline {
        Some(file) => KindSet::for_pipeline(file)?,
        None => KindSet::bundled()?,
    };
    let Some(name) = &args.name else {
        let all: Vec<&Kind> = kinds.catalog.0.values().collect();
        let document: Vec<Value> = all.iter().map(|kind| as_json(kind)).collect();
        output::result(global.format, &document, |_| {
            let rows: Vec<_> =
                all.iter().map(|kind| vec![kind.name.to_string(), kind.summary.clone()]).collect();
            format!("{}\nisokiln kinds NAME explains one.\n", words::table(&rows))
        });
        return Ok(isokiln_core::exit::OK);
    };
    match kinds.catalog.get(name.as_str()) {
        Some(kind) => {
            output::result(global.format, &as_json(kind), |_| explain(kind));
            Ok(isokiln_core::exit::OK)
        }
        None => {
            let names = kinds.catalog.names();
            let near = nearest(name.as_str(), names.iter().copied());
            let meant = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            output::tell(&format!(
                "error: unknown stage kind {:?}{meant}\nvalid: {}",
                name.as_str(),
                names.join(", ")
            ));
            Ok(isokiln_core::exit::USAGE)
        }
    }
}

fn as_json(kind: &Kind) -> Value {
    let options: Vec<Value> = kind
        .options
        .iter()
        .map(|option| {
            json!({
                "name": option.name, "type": option.option_type.name(), "default": option.default,
                "required": option.required, "choices": option.choices, "help": option.help,
            })
        })
        .collect();
    json!({
        "name": kind.name, "summary": kind.summary, "description": kind.description.trim(),
        "network": kind.network, "archive": kind.archive, "privilege": privilege(kind), "rootfs": rootfs(kind),
        "options": options,
    })
}

fn explain(kind: &Kind) -> String {
    let mut text = format!("{}: {}\n", kind.name, kind.summary);
    if !kind.description.trim().is_empty() {
        text.push_str(&format!("\n{}\n", kind.description.trim()));
    }
    text.push_str(&format!(
        "\nRoot file system: {}. Privilege: {}. Network: {}. Archive: {}.\n",
        match kind.rootfs {
            RootfsUse::New => "makes a new one",
            RootfsUse::Change => "changes its parent's",
            RootfsUse::Read => "reads its parent's",
        },
        privilege(kind),
        if kind.network { "yes" } else { "no" },
        if kind.archive { "its state is part of the stage key" } else { "not used" },
    ));
    if !kind.options.is_empty() {
        text.push_str("\nOptions:\n");
    }
    for option in &kind.options {
        text.push_str(&format!("\n  {}  {}\n      {}\n", option.name, traits(option), option.help));
    }
    text
}

fn traits(option: &OptionSpec) -> String {
    let mut text = option.option_type.name().to_owned();
    if !option.choices.is_empty() {
        text.push_str(&format!(", one of {}", option.choices.join(", ")));
    }
    match &option.default {
        _ if option.required => text.push_str(", required"),
        Some(default) => text.push_str(&format!(", default {default}")),
        None => {}
    }
    format!("({text})")
}

fn privilege(kind: &Kind) -> &'static str {
    match kind.privilege {
        Privilege::None => "none",
        Privilege::Chroot => "chroot",
        Privilege::Full => "full",
    }
}

fn rootfs(kind: &Kind) -> &'static str {
    match kind.rootfs {
        RootfsUse::New => "new",
        RootfsUse::Change => "change",
        RootfsUse::Read => "read",
    }
}
