//! A machine with a disk, used as a person uses it: keyboard, mouse and screen over QMP; and a root shell on its second
//! serial port, to look at what came of it.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::builder_image;

/// What the machine begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, with the keys that shim is signed with or with none.
    Uefi {
        /// Whether only signed code is started.
        secure_boot: bool,
    },
}

/// What the machine is started from; the disk is there in any case.
#[derive(Debug)]
pub enum Medium<'a> {
    /// A CD.
    Iso(&'a Path),
    /// The disk itself.
    Disk,
}

/// Width and height of the screen, in dots.
const SCREEN: (u32, u32) = (1024, 768);
/// Bytes of the PNG of a screen on which something is drawn; a black one with a pointer takes three thousand.
const DRAWN: usize = 8_000;
/// What the screen shows is looked at so often.
const LOOK: Duration = Duration::from_secs(2);
/// The unit that offers the shell, given as a system credential.
const SHELL: &str = "[Unit]\nDefaultDependencies=no\nAfter=sysinit.target\n[Service]\nExecStart=/bin/sh\n\
                     StandardInput=tty-force\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS1\nRestart=always\n";
const WANTS_SHELL: &str = "[Unit]\nWants=by-hand.service\n";

/// QEMU in the builder image, translating; it ends when this is dropped. Its disk and its variables of UEFI stay in the
/// folder, where `disk.qcow2` is made if it is not there.
pub struct Machine {
    folder: PathBuf,
    /// QEMU ends when its standard input does, however this program ends.
    container: Child,
    qmp: BufReader<UnixStream>,
    shell: UnixStream,
    marks: u32,
}

type Done<T = ()> = Result<T, String>;

impl Machine {
    /// Starts it, with 4 GiB of memory and no network.
    pub fn start(folder: &Path, firmware: Firmware, medium: &Medium<'_>) -> Done<Self> {
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--interactive", "--network=none"]);
        docker.arg(format!("--volume={}:/machine", folder.display()));
        let mut args: Vec<String> = Vec::new();
        let mut prepare =
            "cd /machine; rm -f *.sock; [ -e disk.qcow2 ] || qemu-img create -q -f qcow2 disk.qcow2 20G"
                .to_owned();
        let mut add = |words: &str| args.extend(words.split(' ').map(str::to_owned));
        add("-nodefaults -no-user-config -accel tcg,thread=multi -smp 2 -m 4G -rtc base=utc -display none");
        add(&format!("-device VGA,xres={},yres={} -device virtio-rng-pci", SCREEN.0, SCREEN.1));
        let machine = match firmware {
            Firmware::Bios => "q35",
            Firmware::Uefi { secure_boot } => {
                let (code, vars) = if secure_boot { (".secboot", ".ms") } else { ("", "") };
                prepare += &format!("; [ -e vars.fd ] || cp /usr/share/OVMF/OVMF_VARS_4M{vars}.fd vars.fd");
                add(&format!(
                    "-drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M{code}.fd"
                ));
                add("-drive if=pflash,unit=1,format=raw,file=vars.fd");
                if secure_boot {
                    "q35,smm=on -global driver=cfi.pflash01,property=secure,value=on"
                } else {
                    "q35"
                }
            }
        };
        add(&format!("-machine {machine}"));
        if let Medium::Iso(iso) = medium {
            docker.arg(format!("--volume={}:/iso:ro", iso.display()));
            add(
                "-drive if=none,id=cd,media=cdrom,format=raw,readonly=on,file=/iso -device ide-cd,drive=cd,bootindex=0",
            );
        }
        add(
            "-drive if=none,id=disk,format=qcow2,file=disk.qcow2 -device virtio-blk-pci,drive=disk,bootindex=1",
        );
        add("-device qemu-xhci -device usb-tablet -device usb-kbd -serial file:serial.log");
        add("-serial unix:shell.sock,server=on,wait=off -qmp unix:qmp.sock,server=on,wait=off");
        for (name, text) in
            [("extra-unit.by-hand.service", SHELL), ("unit-dropin.multi-user.target", WANTS_SHELL)]
        {
            let text = STANDARD.encode(text);
            add(&format!("-smbios type=11,value=io.systemd.credential.binary:systemd.{name}={text}"));
        }
        let script = format!(
            "{prepare}; exec 3<&0; qemu-system-x86_64 \"$@\" & qemu=$!; (cat <&3; kill $qemu) & wait $qemu"
        );
        docker.args([builder_image(), "bash", "-euc", &script, "bash"]).args(&args);
        let log = fs::File::create(folder.join("qemu.log")).map_err(|error| format!("qemu.log: {error}"))?;
        docker.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut container = docker.spawn().map_err(|error| format!("docker: {error}"))?;
        let connect = |name: &str| {
            let since = Instant::now();
            loop {
                match UnixStream::connect(folder.join(name)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) if since.elapsed() > Duration::from_secs(20) => {
                        return Err(format!("{name}: {error}"));
                    }
                    Err(_) => sleep(Duration::from_millis(100)),
                }
            }
        };
        let connected = connect("qmp.sock").and_then(|qmp| Ok((qmp, connect("shell.sock")?)));
        let (qmp, shell) = connected.map_err(|error| {
            end(&mut container);
            format!("{error}; see {}", folder.join("qemu.log").display())
        })?;
        let mut machine =
            Self { folder: folder.to_owned(), container, qmp: BufReader::new(qmp), shell, marks: 0 };
        machine.read_qmp()?;
        machine.order("qmp_capabilities", json!({}))?;
        Ok(machine)
    }

    /// Presses keys together, by QEMU's names of them.
    pub fn press(&mut self, keys: &[&str]) -> Done {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.order("send-key", json!({ "keys": keys }))?;
        sleep(Duration::from_millis(400));
        Ok(())
    }

    /// Types letters and spaces.
    pub fn write(&mut self, text: &str) -> Done {
        for letter in text.chars() {
            let lower = letter.to_ascii_lowercase().to_string();
            let key = if letter == ' ' { "spc" } else { &lower };
            if letter.is_ascii_uppercase() { self.press(&["shift", key])? } else { self.press(&[key])? }
        }
        Ok(())
    }

    /// Clicks so many times at a place of the screen.
    pub fn click(&mut self, x: u32, y: u32, times: u32) -> Done {
        let axis = |axis: &str, value: u32, size: u32| json!({ "type": "abs", "data": { "axis": axis, "value": value * 32767 / size } });
        let places = [axis("x", x, SCREEN.0), axis("y", y, SCREEN.1)];
        self.order("input-send-event", json!({ "events": places }))?;
        sleep(Duration::from_millis(700));
        for down in [true, false].repeat(times as usize) {
            let button = json!({ "type": "btn", "data": { "button": "left", "down": down } });
            self.order("input-send-event", json!({ "events": [button] }))?;
            sleep(Duration::from_millis(90));
        }
        Ok(())
    }

    /// Leaves a picture of the screen.
    pub fn picture(&mut self, name: &str) -> Done {
        self.screen(name).map(drop)
    }

    /// Waits until something is drawn on the screen; a session's programs run long before they draw.
    pub fn is_drawn(&mut self, seconds: u64) -> Done {
        let since = Instant::now();
        while self.screen("now")?.len() < DRAWN {
            if since.elapsed() > Duration::from_secs(seconds) {
                return Err(format!("nothing is drawn in {seconds} s: see now.png"));
            }
            sleep(LOOK);
        }
        self.rest()
    }

    /// Waits until the screen shows the same for a while.
    pub fn rest(&mut self) -> Done {
        let since = Instant::now();
        let (mut last, mut same) = (self.screen("now")?, 0);
        while same < 3 {
            if since.elapsed() > Duration::from_secs(120) {
                return Err("the screen does not come to rest: see now.png".to_owned());
            }
            sleep(LOOK);
            let now = self.screen("now")?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }

    /// Presses keys that change what the screen shows, and waits until it has come to rest.
    pub fn turn_page(&mut self, keys: &[&str]) -> Done {
        let (before, since) = (self.screen("now")?, Instant::now());
        self.press(keys)?;
        while self.screen("now")? == before {
            if since.elapsed() > Duration::from_secs(60) {
                return Err(format!("{} changes nothing: see now.png", keys.join("+")));
            }
            sleep(LOOK);
        }
        self.rest()
    }

    /// Where on the screen the content of a window begins, by a part of its title.
    pub fn window(&mut self, title: &str) -> Done<(u32, u32)> {
        let script = format!(
            "export DISPLAY=:0 XAUTHORITY=$(ls /tmp/xauth* | head -n 1); \
             xwininfo -root -tree | sed -n 's/.*\"[^\"]*{title}[^\"]*\".* +\\([0-9]*\\)+\\([0-9]*\\)$/at \\1 \\2/p'"
        );
        let (_, said) = self.shell(&script)?;
        let place = said.lines().find_map(|line| {
            let (x, y) = line.trim().strip_prefix("at ")?.split_once(' ')?;
            Some((x.parse().ok()?, y.parse().ok()?))
        });
        place.ok_or_else(|| format!("there is no window \"{title}\": {said}"))
    }

    /// Runs a line of shell as root; gives its exit code and what it said.
    pub fn shell(&mut self, line: &str) -> Done<(i32, String)> {
        self.ask(line, Duration::from_secs(600))?
            .ok_or_else(|| format!("the shell does not answer to: {line}"))
    }

    /// Waits until a line of shell ends well; there may be no shell yet.
    pub fn wait(&mut self, what: &str, seconds: u64, line: &str) -> Done {
        let since = Instant::now();
        loop {
            if let Some((0, _)) = self.ask(line, Duration::from_secs(30))? {
                return Ok(());
            }
            if since.elapsed() > Duration::from_secs(seconds) {
                self.picture("failure")?;
                return Err(format!("waited {seconds} s in vain until {what}: see failure.png"));
            }
            sleep(LOOK);
        }
    }

    /// Powers it off, and waits until it has gone.
    pub fn end(mut self) -> Done {
        self.order("system_powerdown", json!({}))?;
        let since = Instant::now();
        while self.screen("now").is_ok() {
            if since.elapsed() > Duration::from_secs(120) {
                return Err("the machine does not power off".to_owned());
            }
            sleep(LOOK);
        }
        Ok(())
    }

    fn ask(&mut self, line: &str, patience: Duration) -> Done<Option<(i32, String)>> {
        self.marks += 1;
        // What is typed is echoed; only the answer has the words as one.
        let (mark, begin) = (format!("end-{}", self.marks), format!("begin-{}", self.marks));
        let typed = format!("echo begin''-{0}; {line}\necho end''-{0} $?\n", self.marks);
        let lost = |error: std::io::Error| format!("the shell's port: {error}");
        self.shell.write_all(typed.as_bytes()).map_err(lost)?;
        self.shell.set_read_timeout(Some(Duration::from_millis(500))).map_err(lost)?;
        let (since, mut said, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
        while since.elapsed() < patience {
            match self.shell.read(&mut buffer) {
                Ok(0) => return Err("the machine has gone".to_owned()),
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(lost(error)),
            }
            let text = String::from_utf8_lossy(&said).replace('\r', "");
            let Some((words, status)) = text.rsplit_once(&mark) else { continue };
            let Some((status, _)) = status.split_once('\n') else { continue };
            if let Ok(status) = status.trim().parse() {
                let words = words.rsplit_once(&begin).map_or(words, |(_, words)| words);
                return Ok(Some((status, words.to_owned())));
            }
        }
        Ok(None)
    }

    fn screen(&mut self, name: &str) -> Done<Vec<u8>> {
        let file = format!("{name}.png");
        self.order("screendump", json!({ "filename": file, "format": "png" }))?;
        fs::read(self.folder.join(&file)).map_err(|error| format!("{file}: {error}"))
    }

    fn order(&mut self, name: &str, arguments: Value) -> Done<Value> {
        let line = json!({ "execute": name, "arguments": arguments }).to_string() + "\n";
        self.qmp.get_mut().write_all(line.as_bytes()).map_err(|error| format!("QMP: {error}"))?;
        loop {
            let answer = self.read_qmp()?;
            if let Some(error) = answer.get("error") {
                return Err(format!("QEMU refuses {name}: {error}"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn read_qmp(&mut self) -> Done<Value> {
        let mut line = String::new();
        self.qmp.read_line(&mut line).map_err(|error| format!("QMP: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("QMP: {error}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.container);
    }
}

fn end(container: &mut Child) {
    drop(container.stdin.take());
    // It may have gone by itself.
    drop(container.wait());
}
