//! One machine from its first instruction to the last verdict.

use std::time::Duration;

use isokiln_core::boot::screen::{Frame, ScreenId, TextScreen, Vitals};
use isokiln_core::boot::{
    Cause, Channel, Check, CheckResult, CheckSpec, GuestFiles, Inventory, MenuEdit, Phase, PhaseTime,
    ProbeMessage, Ride, Sighting, Start, chords, record_order,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior};

use super::agent;
use super::evidence::Evidence;
use super::eye::{Look, Seen, Wish};
use super::probe::Probe;
use super::state::State;
use super::watch::{Ending, Source};
use super::wires::{closed, connect, last_words, lost, quit, some};
use super::{BootError, BootNews, BootRequest, Guest, Wire};

/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How far the firmware's words may come behind the screen's and the serial port's.
const BEHIND: Duration = Duration::from_secs(1);
/// How much of the serial port's output is taken for what a terminal shows, in bytes.
const TERMINAL: usize = 16 << 10;
/// Rows of the screen that are remembered, so that each is read once.
const ROWS: usize = 200;

/// What one machine came to.
pub(super) struct Outcome {
    pub(super) phases: Vec<PhaseTime>,
    /// Of the probe and of the screen, in the order of ending.
    pub(super) results: Vec<CheckResult>,
    /// How the boot ended, where the probe did not get to all questions.
    pub(super) ending: Option<Ending>,
    /// The line of a login prompt that was read from outside.
    pub(super) login: Option<String>,
    /// How the probe came in.
    pub(super) channel: Option<Channel>,
    pub(super) menu: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) inventory: Option<Inventory>,
    /// Seconds from the start of the machine until now.
    pub(super) seconds: f64,
}

pub(super) struct Session<'s> {
    pub(super) request: &'s BootRequest,
    pub(super) ride: &'s Ride,
    /// Whether the firmware is not to see the ISO's boot record.
    pub(super) hides_record: bool,
    /// Which of the boot test's machines this is, from 1.
    pub(super) machine: usize,
    pub(super) guest: &'s dyn Guest,
    pub(super) files: GuestFiles,
    pub(super) evidence: &'s mut Evidence,
    pub(super) news: UnboundedSender<BootNews>,
}

impl Session<'_> {
    pub(super) async fn run(mut self) -> Result<Outcome, BootError> {
        let (wishes, wished) = mpsc::unbounded_channel();
        let mut state = State::new(self.request, self.ride, wishes)?;
        match self.watch(&mut state, wished).await {
            Ok(ending) => self.finish(state, ending),
            Err(error) if state.results.is_empty() => Err(error),
            // What was found out before the tester broke stays found out.
            Err(error) => self.finish(state, Some(Ending::Broken(error.to_string()))),
        }
    }

    /// Watches the machine to its end; `None` is a boot all of whose questions are answered.
    async fn watch(
        &mut self,
        state: &mut State,
        wished: UnboundedReceiver<Wish>,
    ) -> Result<Option<Ending>, BootError> {
        let (event_sender, mut events) = mpsc::unbounded_channel();
        let (seen_sender, mut seen) = mpsc::unbounded_channel();
        let mut ended = std::pin::pin!(self.guest.ended());
        let connected = tokio::select! {
            biased;
            ended = &mut ended => return Err(quit(ended)),
            connected = connect(self.guest, &self.files, event_sender, seen_sender) => connected,
        };
        let (eye, mut lines) = match connected {
            Ok(connected) => connected,
            Err(error) => return Err(last_words(&mut ended).await.unwrap_or(error)),
        };
        state.watch.begin();
        let mut looking = std::pin::pin!(eye.run(wished));
        let agent_socket = self.files.path("agent.sock");
        let mut agent = std::pin::pin!(agent::start_probe(self.guest, &agent_socket));
        let mut agent_asked = false;
        let [mut serial_buffer, mut firmware_buffer, mut shell_buffer] = [[0; 16 << 10]; 3];
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hung_up = false;
        let mut shell_open = true;

        loop {
            self.mind_record(state);
            let knows_agent = self.ride.channels.contains(&Channel::GuestAgent);
            let ask_agent = knows_agent
                && !agent_asked
                && state.channel.is_none()
                && state.watch.furthest() >= Some(Phase::Initramfs);
            tokio::select! {
                // Time first: it must not stand still for a guest that talks without a pause. Then the consoles: what
                // they say explains what the others only notice.
                biased;
                _ = ticks.tick() => {
                    if let Some(ending) = self.tick(state, &mut lines.probe, hung_up).await {
                        return Ok(ending);
                    }
                }
                count = lines.serial.read(&mut serial_buffer) => {
                    let bytes = &serial_buffer[..some(count, &mut ended).await?];
                    self.console(state, 0, bytes)?;
                }
                count = lines.firmware.read(&mut firmware_buffer) => {
                    let bytes = &firmware_buffer[..some(count, &mut ended).await?];
                    self.console(state, 1, bytes)?;
                }
                count = lines.shell.0.read(&mut shell_buffer), if shell_open => {
                    let bytes = &shell_buffer[..some(count, &mut ended).await?];
                    self.evidence.append("shell.log", bytes)?;
                    if state.channel.is_none() && state.says_hello(bytes) {
                        // The guest has no driver for the probe's own port: this one serves as well.
                        let (reader, writer) = std::mem::replace(&mut lines.shell, closed());
                        lines.probe = Probe::new(Wire { reader, writer });
                        hung_up = lines.probe.send_agent().await.is_none();
                        shell_open = false;
                    } else if let Some(answer) = state.shell(bytes).filter(|_| self.may_use_shell()) {
                        shell_open = lines.shell.1.write_all(answer.as_bytes()).await.is_ok()
                            && lines.shell.1.flush().await.is_ok();
                    }
                }
                Some(event) = events.recv() => {
                    self.evidence.append("qmp.jsonl", format!("{event}\n").as_bytes())?;
                    let ran = state.watch.furthest() >= Some(Phase::Kernel);
                    state.watch.event(&event);
                    match event["event"].as_str() {
                        Some("STOP") => state.wish(Wish::Status),
                        Some("RESET") if ran && event["data"]["guest"] == true => {
                            let seconds = state.watch.seconds();
                            state.notes.push(format!("the guest restarted by itself after {seconds:.0} s"));
                        }
                        _ => {}
                    }
                }
                Some(seen) = seen.recv() => match seen {
                    Seen::Look(look) => self.look(state, *look)?,
                    Seen::Pressed => state.pressing -= 1,
                    Seen::Refused(complaint) => {
                        let words = "the ISO's boot record cannot be hidden from the firmware and shown to the system";
                        state.notes.push(format!("{words}: {complaint}"));
                    }
                    Seen::Status(status) => {
                        // A guest's own shutdown also stops the machine, and has its own event.
                        if !["running", "shutdown", "paused", "guest_panicked"].contains(&status.as_str()) {
                            state.watch.broken(format!("QEMU stopped the machine: {status}"));
                        }
                    }
                },
                said = lines.probe.next(), if !hung_up => match said {
                    Some(ProbeMessage::Hello) => hung_up = lines.probe.send_agent().await.is_none(),
                    Some(ProbeMessage::Ready) => {
                        state.channel.get_or_insert(state.entry.unwrap_or(self.ride.passive_channel()));
                        self.reached(state, Phase::Userspace);
                        state.watch.probed();
                        state.questions.begin();
                    }
                    Some(ProbeMessage::Answer { answer, .. }) => self.answered(state, &answer)?,
                    None => hung_up = true,
                },
                outcome = &mut agent, if ask_agent => {
                    agent_asked = true;
                    let outcome = match outcome {
                        Ok(outcome) => outcome,
                        Err(error) => return Err(last_words(&mut ended).await.unwrap_or(error)),
                    };
                    match outcome {
                        Ok(()) => state.entry = Some(Channel::GuestAgent),
                        Err(words) => state.notes.push(format!("QEMU's guest agent refuses to run the probe: {words}")),
                    }
                }
                outcome = &mut looking => {
                    let error = outcome.err().unwrap_or_else(lost);
                    return Err(last_words(&mut ended).await.unwrap_or(error));
                }
                ended = &mut ended => return Err(quit(ended)),
            }
        }
    }

    /// Looks at the time: what to ask, what to press, and whether it is over. `Some(None)` is a boot all of whose
    /// questions are answered.
    async fn tick(&self, state: &mut State, probe: &mut Probe, hung_up: bool) -> Option<Option<Ending>> {
        let (scale, seconds) = (state.watch.scale(), state.watch.seconds());
        for result in state.screens.expired(scale, seconds) {
            self.ended(state, result);
        }
        if let Some(result) = state.questions.ask(probe, hung_up, scale, state.channel, seconds).await {
            if state.watch.is_still() {
                return Some(Some(state.watch.froze()));
            }
            self.ended(state, result);
        }
        if state.is_done() {
            // What is asked of the screen alone can be answered before the firmware's own words have come.
            let since = state.done_since.get_or_insert_with(Instant::now);
            let has_told = state.watch.furthest() >= Some(Phase::BootMenu);
            return (has_told || since.elapsed() >= BEHIND).then_some(None);
        }
        if state.questions.have_begun() {
            return state.watch.failure().map(Some);
        }
        let edits = state.menu_edit.as_ref().is_some_and(MenuEdit::has_begun);
        let at_menu = state.watch.is_at_menu();
        // Once on the off-chance, and once at a menu.
        let pressed = if at_menu { &mut state.menu_answered } else { &mut state.enter_pressed };
        if state.pressing == 0 && !edits && state.watch.waits_for_key() && !*pressed {
            // A menu that an edit was given up at waits because of the edit.
            let alone = self.request.unattended && !state.edit_given_up;
            if alone && at_menu {
                return Some(Some(state.watch.waits_for_ever()));
            }
            if !alone {
                *pressed = true;
                state.notes.push(if at_menu {
                    "pressed Enter at the boot menu, which waits for a key for ever".to_owned()
                } else {
                    "pressed Enter: the machine stood still before a kernel was started".to_owned()
                });
                state.press(vec![vec!["ret"]]);
                state.watch.key_pressed();
            }
        }
        match state.watch.ending() {
            // The screen may show something yet.
            Some(Ending::Because { cause: Cause::NoProbe, .. }) if !state.screens.are_done() => None,
            ending => ending.map(Some),
        }
    }

    /// Shows the ISO's boot record once the firmware is done with it: the kernel takes a moment to find its disks. Hides
    /// it again where the machine was restarted.
    fn mind_record(&self, state: &mut State) {
        let hide = state.watch.current() < Some(Phase::Kernel);
        if self.hides_record && hide != state.record_hidden {
            state.record_hidden = hide;
            state.wish(Wish::Order(record_order(hide)));
        }
    }

    fn tell(&self, news: BootNews) {
        // Whoever listened may have gone; the report says the same.
        drop(self.news.send(news));
    }

    /// Notes the end of a check.
    fn ended(&self, state: &mut State, result: CheckResult) {
        // What a kernel that was started directly says of the boot is not the last word.
        let direct = matches!(self.ride.start, Start::Kernel(_));
        if !direct || result.check != CheckSpec::boot().name() {
            self.tell(BootNews::Checked(result.clone()));
        }
        state.results.push(result);
    }

    fn reached(&self, state: &mut State, phase: Phase) {
        if let Some(time) = state.watch.entered(phase) {
            self.entered(state, time);
        }
    }

    fn entered(&self, state: &mut State, time: PhaseTime) {
        state.label = Some(time.phase.name());
        self.tell(BootNews::Entered { machine: self.machine, phase: time.phase, seconds: time.seconds });
    }

    fn console(&mut self, state: &mut State, index: usize, bytes: &[u8]) -> Result<(), BootError> {
        self.evidence.append(["serial.log", "firmware.log"][index], bytes)?;
        if index == 0 {
            state.serial_bytes += bytes.len() as u64;
            state.terminal.extend_from_slice(bytes);
            let surplus = state.terminal.len().saturating_sub(TERMINAL);
            state.terminal.drain(..surplus);
        }
        // Line by line, so that none is gone before it was compared.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for (sighting, line) in state.consoles[index].feed(piece) {
                self.sighted(state, sighting, &line, Source::Wire);
            }
            if index == 0 && !state.screens.are_done() {
                let (said, seconds) = (state.consoles[0].recent(), state.watch.seconds());
                for result in state.screens.lines(&said, seconds) {
                    self.ended(state, result);
                }
            }
        }
        state.watch.heard_last(state.consoles[0].recent(), state.consoles[0].asks());
        Ok(())
    }

    fn sighted(&self, state: &mut State, sighting: Sighting, line: &str, by: Source) {
        if let Some(time) = state.watch.sighting(sighting, line, by) {
            self.entered(state, time);
        }
    }

    /// Takes in what the eye saw.
    fn look(&mut self, state: &mut State, mut look: Look) -> Result<(), BootError> {
        state.has_looked = true;
        let seconds = state.watch.seconds();
        for time in state.watch.processors(&look.processors) {
            self.entered(state, time);
        }
        // Before the kernel, firmware and boot loaders draw on the serial port what they draw on the screen.
        if look.text.is_none() && state.watch.furthest() < Some(Phase::Kernel) && !state.terminal.is_empty() {
            look.text = Some(TextScreen::from_vt100(&state.terminal));
        }
        // A blinking cursor shows nothing new.
        let blinks =
            |frame: &Frame| state.last_picture.as_ref().is_some_and(|last| frame.same_but_cursor(last));
        let picture = look.picture.take().filter(|frame| state.label.is_some() || !blinks(frame));
        if let Some(frame) = picture {
            let label = state.label.take();
            self.evidence.picture(seconds, label, &frame)?;
            state.film.push(seconds, &frame, label);
            state.screen = ScreenId::of_picture(frame.fingerprint());
            for result in state.screens.picture(&frame, seconds) {
                self.ended(state, result);
            }
            state.last_picture = Some(frame);
        }
        for result in state.screens.text(look.text.as_ref(), seconds) {
            self.ended(state, result);
        }
        if let Some(text) = &look.text {
            for row in text.rows().filter(|row| !row.trim().is_empty()) {
                if state.rows.contains(&row) {
                    continue;
                }
                for (sighting, line) in state.reader.feed(format!("{row}\n").as_bytes()) {
                    self.sighted(state, sighting, &line, Source::Screen);
                }
                if state.rows.len() == ROWS {
                    state.rows.remove(0);
                }
                state.rows.push(row);
            }
        }
        let vitals = Vitals {
            seconds,
            serial_bytes: state.serial_bytes,
            disk_bytes: look.disk_bytes,
            screen: look.text.as_ref().map_or_else(|| state.screen.clone(), ScreenId::of_text),
            program_counters: look.processors.iter().map(|processor| processor.counter).collect(),
            halted: !look.processors.is_empty() && look.processors.iter().all(|processor| processor.halted),
        };
        for time in state.watch.look(&look, vitals) {
            self.entered(state, time);
        }
        self.type_if_need_be(state, &look);
        Ok(())
    }

    /// Whether the ISO's console on the second serial port may be used, if it has one.
    fn may_use_shell(&self) -> bool {
        let ways = [Channel::SerialGetty, Channel::BootMenu, Channel::Console];
        self.ride.channels.iter().any(|channel| ways.contains(channel))
    }

    /// Types at the boot menu or at a console, where the probe is to come in that way.
    fn type_if_need_be(&self, state: &mut State, look: &Look) {
        if state.pressing > 0 || state.channel.is_some() {
            return;
        }
        if let Some(edit) = &mut state.menu_edit {
            let keys = edit.next(look.menu().as_ref());
            if edit.is_done() {
                state.entry = Some(Channel::BootMenu);
                state.watch.key_pressed();
                state.menu_edit = None;
            } else if edit.is_given_up() {
                state.notes.push("the boot menu does not show what was typed at it".to_owned());
                state.edit_given_up = true;
                state.menu_edit = None;
            }
            if let Some(keys) = keys {
                state.press(keys);
            }
            return;
        }
        let logs_in = self.ride.channels.contains(&Channel::Console) && state.watch.login().is_some();
        if logs_in && let Some(text) = &look.text {
            let prompt = text.rows().filter(|row| !row.trim().is_empty()).last().unwrap_or_default();
            if let Some(answer) = state.console.answer(&prompt)
                && let Some(keys) = chords(&answer)
            {
                state.press(keys);
                state.entry = Some(Channel::Console);
            }
        }
    }

    fn answered(&self, state: &mut State, answer: &isokiln_core::boot::Answer) -> Result<(), BootError> {
        let (scale, seconds) = (state.watch.scale(), state.watch.seconds());
        let answered = state.questions.answered(answer, scale, state.channel, seconds);
        let Some((check, mut result)) = answered else { return Ok(()) };
        if check.is_graphical()
            && let Some(frame) = &state.last_picture
        {
            let picture = self.evidence.picture_of(&result.check, frame)?;
            // Further machines have folders of their own in that of the boot test.
            let is_first = self.machine == 1;
            result.picture =
                Some(if is_first { picture } else { format!("machine-{}/{picture}", self.machine) });
            result.must_be_seen_on(frame);
        }
        // With failed units too.
        let has = |key: &str| result.evidence.iter().any(|line| line.starts_with(key));
        if check.what == Check::Boot && has("target ") {
            self.reached(state, Phase::MultiUser);
        }
        if (check.what == Check::Boot || check.is_graphical()) && has("session ") {
            self.reached(state, Phase::Desktop);
        }
        self.ended(state, result);
        Ok(())
    }

    fn finish(self, mut state: State, ending: Option<Ending>) -> Result<Outcome, BootError> {
        let seconds = state.watch.seconds();
        if matches!(ending, Some(Ending::Because { .. })) {
            for result in state.screens.give_up(seconds) {
                self.ended(&mut state, result);
            }
        }
        let label = if ending.is_some() { "failure" } else { "end" };
        if let Some(frame) = &state.last_picture {
            self.evidence.png(&format!("{label}.png"), frame)?;
        }
        self.evidence.film(&state.film)?;
        Ok(Outcome {
            login: state.watch.login().map(str::to_owned),
            menu: state.watch.menu().to_vec(),
            phases: state.watch.phases,
            results: state.results,
            ending,
            channel: state.channel,
            notes: state.notes,
            inventory: state.questions.inventory,
            seconds,
        })
    }
}
