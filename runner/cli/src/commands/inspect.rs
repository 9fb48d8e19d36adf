//! `isokiln inspect`.

use std::path::Path;

use console::Style;
use isokiln_core::boot::iso::{EfiProgram, LoaderConfig, Modules, PartitionTables, System, UnitState};
use isokiln_core::boot::{Expectation, Expectations, Inspection, IsoFacts, Outlook, Platform};
use isokiln_core::exit;
use isokiln_core::units::show_size;
use isokiln_engine::inspect::inspect;
use isokiln_engine::run::RunError;
use isokiln_engine::testbed::Testbed;
use serde_json::json;

use crate::args::{Global, Inspect};
use crate::{output, words};

pub(super) fn run(global: &Global, args: &Inspect) -> Result<u8, RunError> {
    let testbed = Testbed::beside(Path::new(""))?;
    let failed = |source| RunError::Iso { path: args.iso.clone(), source };
    let inspection = inspect(&args.iso).map_err(failed)?;
    let size = std::fs::metadata(&args.iso).map_err(|error| failed(error.into()))?.len();
    let expectations = Expectations::of(&inspection, &testbed.profiles);
    let name = args.iso.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let document = json!({
        "iso": name, "size": size, "inspection": inspection, "expectations": expectations,
    });
    output::result(global.format, &document, |_| {
        let mut page = Page::default();
        page.say("ISO", &format!("{name}, {}, label {:?}", show_size(size), inspection.facts.label));
        page.inspection(&inspection);
        page.expectations("machines", &expectations.profiles);
        page.expectations("checks", &expectations.checks);
        page.expectations("ways in for the probe", &expectations.channels);
        page.0
    });
    Ok(exit::OK)
}

/// The lines for people.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, word: &str, style: &Style, text: &str) {
        self.0.push_str(&words::line(word, style, text));
        self.0.push('\n');
    }

    fn say(&mut self, word: &str, text: &str) {
        self.line(word, &words::calm(), text);
    }

    fn inspection(&mut self, inspection: &Inspection) {
        self.say("boots by", &boot_records(&inspection.facts));
        if !inspection.facts.tables.partitions.is_empty() {
            self.say("partitions", &partitions(&inspection.facts.tables));
        }
        for program in inspection.esp.iter().flat_map(|esp| &esp.programs) {
            self.say("EFI", &efi(program));
        }
        for config in &inspection.loader_configs {
            self.say("menu", &menu(config));
        }
        for kernel in &inspection.kernels {
            let release = kernel.release.as_deref().unwrap_or("unknown");
            self.say("kernel", &format!("{}, {release}, {}", kernel.path, show_size(kernel.size)));
        }
        for initrd in &inspection.initrds {
            let format = initrd.format.as_deref().unwrap_or("unknown format");
            self.say("initrd", &format!("{}, {format}, {}", initrd.path, show_size(initrd.size)));
        }
        if let Some(system) = &inspection.system {
            self.system(system);
        }
        for problem in &inspection.problems {
            self.line("problem", &words::fair(), problem);
        }
    }

    fn system(&mut self, system: &System) {
        let name = system.name.as_deref().unwrap_or("without a name");
        let live = system.live.map(|live| format!(", by {}", live.name())).unwrap_or_default();
        self.say("system", &format!("{name}, in {}{live}", system.images.join(" over ")));
        let mut parts = vec![match (system.systemd, system.init.as_deref()) {
            (Some(version), _) => format!("systemd {version}"),
            (None, Some(init)) => format!("init is {init}"),
            (None, None) => "no init".to_owned(),
        }];
        parts.extend(system.network_manager.map(|state| {
            let state = match state {
                UnitState::Enabled => "enabled",
                UnitState::Disabled => "not enabled",
                UnitState::Masked => "masked",
            };
            format!("NetworkManager ({state})")
        }));
        parts.extend(system.calamares.as_ref().map(|version| format!("Calamares {version}")));
        parts.extend(system.guest_agent.then(|| "qemu-guest-agent".to_owned()));
        parts.extend(system.initramfs.map(|generator| generator.name().to_owned()));
        self.say("has", &parts.join(", "));
        if let Some(modules) = &system.modules {
            self.say("modules", &modules_of(modules));
        }
        if !system.sessions.is_empty() || system.display_manager.is_some() {
            let manager = system.display_manager.as_deref().unwrap_or("no display manager");
            self.say("desktop", &format!("{manager}; sessions: {}", system.sessions.join(", ")));
        }
    }

    fn expectations<T: std::fmt::Display>(&mut self, title: &str, expectations: &[Expectation<T>]) {
        self.0.push_str(&format!("\nExpected of {title}:\n"));
        for Expectation { subject, outlook, reason } in expectations {
            let style = match outlook {
                Outlook::Yes => words::good(),
                Outlook::No | Outlook::Broken => words::bad(),
                Outlook::Unknown => words::fair(),
            };
            self.line(&outlook.to_string(), &style, &format!("{subject}: {reason}"));
        }
    }
}

fn boot_records(facts: &IsoFacts) -> String {
    let records: Vec<_> = [(Platform::Bios, "El Torito for BIOS"), (Platform::Efi, "El Torito for UEFI")]
        .into_iter()
        .filter(|(platform, _)| facts.boots_on(*platform))
        .map(|(_, name)| name)
        .chain((facts.tables.mbr && facts.tables.boot_code).then_some("boot code in the MBR"))
        .collect();
    if records.is_empty() { "nothing".to_owned() } else { records.join(", ") }
}

fn partitions(tables: &PartitionTables) -> String {
    let kinds = match (tables.mbr, tables.gpt) {
        (true, true) => "MBR and GPT",
        (false, true) => "GPT",
        _ => "MBR",
    };
    match tables.esp() {
        Some(esp) => format!("{kinds}, EFI system partition of {}", show_size(esp.place.size)),
        None => format!("{kinds}, no EFI system partition"),
    }
}

fn efi(program: &EfiProgram) -> String {
    let signed = match program.signers.as_slice() {
        [] => "not signed".to_owned(),
        signers => format!("signed by {}", signers.join(" and ")),
    };
    format!("{}, {}, {signed}", program.path, program.machine)
}

fn menu(config: &LoaderConfig) -> String {
    let when = match config.timeout {
        None => "waits for a key for ever".to_owned(),
        Some(0) => "boots at once".to_owned(),
        Some(seconds) => format!("boots after {seconds} s"),
    };
    let entries = match config.entries.len() {
        0 => return format!("{} of {}: no entries", config.path, config.loader.name()),
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let default = config.default.and_then(|place| config.entries.get(place));
    let default = default.map(|entry| format!(", by default {:?}", entry.title)).unwrap_or_default();
    format!("{} of {}: {entries}, {when}{default}", config.path, config.loader.name())
}

fn modules_of(modules: &Modules) -> String {
    let simulator = if modules.wlan_simulator { "" } else { ", no mac80211_hwsim" };
    let console = if modules.virtio_console { "" } else { ", no virtio_console" };
    format!(
        "{} for {}, {} of them WLAN{simulator}{console}",
        modules.count,
        modules.release,
        modules.wlan.len()
    )
}
