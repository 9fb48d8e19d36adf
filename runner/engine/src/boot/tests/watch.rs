//! What holds for the judgement of a boot, in whatever order things are seen.

use isokiln_core::boot::screen::{ScreenId, Vitals};
use isokiln_core::boot::{Processor, Sighting};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::boot::eye::Look;
use crate::boot::watch::{Ending, Expected, Source, Watch};

/// Something that is seen, or time that passes.
#[derive(Debug, Clone)]
enum Step {
    Sighting(Sighting, &'static str),
    Event(&'static str, bool),
    Look { counter: u64, privilege: u8, halted: bool, screen: u64, bytes: u64 },
    Broken,
    Probed,
    KeyPressed,
    Time(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    use Cause::*;
    let phase = prop::sample::select(vec![
        Phase::Firmware,
        Phase::BootMenu,
        Phase::Kernel,
        Phase::Initramfs,
        Phase::Userspace,
        Phase::MultiUser,
    ]);
    let cause =
        prop::sample::select(vec![NothingBootable, NoKernel, KernelPanic, InitramfsShell, EmergencyMode]);
    let note = prop::sample::select(vec![SquashfsError, OutOfMemory, KernelOops]);
    let event = prop::sample::select(vec!["SHUTDOWN", "RESET", "GUEST_PANICKED", "STOP", "FROM_THE_FUTURE"]);
    let counter = prop::sample::select(vec![0x7c00, 0xffff_ffff_8100_0000, 0x7f00_0000_0000]);
    prop_oneof![
        phase.prop_map(|phase| Step::Sighting(Sighting::Entered(phase), "live login: ")),
        cause.prop_map(|cause| Step::Sighting(
            Sighting::Failed(cause),
            "[    1.0] Kernel panic - not syncing"
        )),
        note.prop_map(|cause| Step::Sighting(Sighting::Noted(cause), "noted")),
        (event, any::<bool>()).prop_map(|(name, by_guest)| Step::Event(name, by_guest)),
        (counter, prop::sample::select(vec![0, 3]), any::<bool>(), 0_u64..3, 0_u64..3).prop_map(
            |(counter, privilege, halted, screen, bytes)| Step::Look {
                counter,
                privilege,
                halted,
                screen,
                bytes
            }
        ),
        Just(Step::Broken),
        Just(Step::Probed),
        Just(Step::KeyPressed),
        (1_u64..2000).prop_map(Step::Time),
    ]
}

/// Takes a step; time passes only where the step says so.
async fn take(watch: &mut Watch, step: &Step, bytes: &mut u64) {
    match step {
        Step::Sighting(sighting, line) => drop(watch.sighting(*sighting, line, Source::Wire)),
        Step::Event(name, by_guest) => watch.event(&json!({"event": name, "data": {"guest": by_guest}})),
        Step::Look { counter, privilege, halted, screen, bytes: more } => {
            *bytes += more * 10_000;
            let processor = Processor { counter: *counter, privilege: *privilege, halted: *halted };
            let look = Look { processors: vec![processor], disk_bytes: *bytes, ..Look::default() };
            let vitals = Vitals {
                seconds: watch.seconds(),
                serial_bytes: *bytes,
                disk_bytes: *bytes,
                screen: ScreenId::of_picture(*screen),
                program_counters: vec![*counter],
                halted: *halted,
            };
            watch.look(&look, vitals);
        }
        Step::Broken => watch.broken("QEMU stopped the machine: io-error".to_owned()),
        Step::Probed => watch.probed(),
        Step::KeyPressed => watch.key_pressed(),
        Step::Time(milliseconds) => tokio::time::advance(Duration::from_millis(*milliseconds)).await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_seen_ends_a_boot_before_more_could_be_said(
        script in prop::collection::vec(steps(), 0..60),
        holds_linux in any::<bool>(),
        expected in prop::sample::select(vec![Expected::Never, Expected::Perhaps, Expected::Surely]),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::new(1.0, holds_linux, expected);
            let mut bytes = 0;
            // When something was seen last that can be the end of a boot.
            let mut first_word: Option<Instant> = None;
            for step in &script {
                let phases = watch.phases.len();
                let before = watch.ending();
                take(&mut watch, step, &mut bytes).await;
                if matches!(step, Step::Sighting(..) | Step::Event(..) | Step::Broken) {
                    first_word.get_or_insert_with(Instant::now);
                    let after = watch.ending();
                    prop_assert!(before.is_some() || after.is_none(), "{step:?} ends it at once: {after:?}");
                }
                let ending = watch.ending();
                if let Some(ending) = &ending {
                    let heard = first_word.is_some_and(|at| at.elapsed() >= Duration::from_secs(4));
                    let long = watch.seconds() >= 40.0;
                    prop_assert!(heard || long, "{ending:?} after {} seconds", watch.seconds());
                }
                prop_assert!(watch.phases.len() >= phases && watch.phases.is_sorted_by_key(|time| time.phase));
                // The probe's word is overruled by nothing but a failure that was seen.
                if let Some(failure) = watch.failure() {
                    prop_assert_eq!(Some(&failure), ending.as_ref());
                    if let Ending::Because { lines, .. } = failure {
                        prop_assert!(lines.len() <= script.len() + 1);
                    }
                }
            }
            Ok(())
        })?;
    }
}
