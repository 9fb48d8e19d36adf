//! QEMU in a container: started, talked to through its sockets, and gone when it is let go of.

use std::io::{self, Read};

use futures_util::StreamExt;
use isokiln_core::digest::Digest;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio_util::io::StreamReader;

use super::super::messages::{Part, Separator, StageMessage};
use super::super::{ContainerFile, Inflow, SandboxError};
use super::container::{Attachment, Container, ContainerSpec};
use super::exec::{Exec, ExecInput, Tail};
use super::rights::Rights;
use super::upload::Upload;
use super::{DockerSandbox, VOLUME};

/// What QEMU's container is given.
#[derive(Debug, Clone)]
pub struct GuestOrder {
    /// For labels and messages.
    pub purpose: String,
    /// Shell script that runs before QEMU, as the same user and in its folder.
    pub prepare: String,
    /// QEMU's arguments.
    pub arguments: Vec<String>,
    /// User and group that QEMU runs as, as numbers.
    pub user: (u32, u32),
    /// Whether it gets `/dev/kvm`.
    pub kvm: bool,
    /// Small files for it.
    pub files: Vec<ContainerFile>,
}

/// QEMU's container while it runs.
pub struct GuestContainer {
    container: Container,
    attachment: Mutex<Attachment>,
    files: Mutex<Option<FileServer>>,
    token: String,
}

/// A command that runs as long as the container and hands out files by their path: one process for a picture
/// every second. Packed, because bytes on their way through the engine take time from a machine that translates.
struct FileServer {
    reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    input: ExecInput,
}

const SERVE_FILES: &str = r#"packed=$(mktemp)
while IFS= read -r path; do
    # What could not be packed must not be taken for the file before it.
    if zstd --quiet --force --fast=3 -o "$packed" -- "$path" 2>/dev/null; then
        stat --format=%s "$packed"
        cat "$packed"
    else
        echo missing
    fi
done"#;
/// Longest file that is handed out, in bytes: twice a picture of a screen of 8K.
const MAX_FILE: u64 = 256 << 20;

/// Capabilities with which the container prepares QEMU's folder and then becomes the user.
const TO_BECOME_USER: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "SETGID", "SETPCAP", "SETUID"];

impl DockerSandbox {
    /// Takes an ISO into the volume; also gives the path at which QEMU will find it.
    pub async fn iso_inflow(&self, digest: Digest) -> Result<(Inflow, String), SandboxError> {
        let name = format!("{}.iso", digest.short());
        let run = self.run.as_str();
        let flow = self.carry_in(&["iso", run, &name], "taking the ISO").await?;
        Ok((flow, format!("{VOLUME}/iso/{run}/{name}")))
    }

    /// Gives back the room of the ISOs that this run has taken in.
    pub async fn drop_isos(&self) -> Result<(), SandboxError> {
        // Without a porter, none was.
        if self.porter.get().is_none() {
            return Ok(());
        }
        self.carry(&["drop-isos", self.run.as_str()], "removing the ISO").await.map(drop)
    }

    /// Starts QEMU.
    pub async fn start_guest(&self, order: GuestOrder) -> Result<GuestContainer, SandboxError> {
        let mut command = vec!["/isokiln/lib/guest", "qemu-system-x86_64"];
        command.extend(order.arguments.iter().map(String::as_str));
        let mut spec = ContainerSpec::new(&self.image, &self.run, &order.purpose, &command);
        spec.rights = Rights::Only(TO_BECOME_USER.map(str::to_owned).to_vec());
        // The guest's own network goes out through QEMU.
        spec.network = true;
        spec.volume = Some(self.mount(true).await?);
        spec.environment = vec![
            ("ISOKILN_USER".to_owned(), format!("{}:{}", order.user.0, order.user.1)),
            ("ISOKILN_TOKEN".to_owned(), self.token.clone()),
        ];
        if order.kvm {
            spec.devices.push("/dev/kvm".to_owned());
        }
        let prepare = ContainerFile::data("/isokiln/prepare.sh".to_owned(), order.prepare);
        let upload = Upload::library().files(order.files).files([prepare]);
        let (container, attachment) = Container::launch(&self.engine, &spec, upload).await?;
        Ok(GuestContainer {
            container,
            attachment: Mutex::new(attachment),
            files: Mutex::new(None),
            token: self.token.clone(),
        })
    }
}

/// Both directions of a socket in the container.
pub struct Channel {
    /// From the guest.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the guest.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl GuestContainer {
    /// Connects to a UNIX socket, waiting for it to appear for at most ten seconds.
    pub async fn connect(&self, path: &str) -> Result<Channel, SandboxError> {
        let script = format!(
            "for i in $(seq 200); do [ -S {path} ] && exec socat - UNIX-CONNECT:{path}; sleep 0.05; done; exit 1"
        );
        let (output, input, _) =
            Exec::start(&self.container, &["sh", "-c", &script], true).await?.into_parts();
        Ok(Channel { reader: stdout(output), writer: Box::new(input) })
    }

    /// A file's bytes from its beginning, and what is added to it as it comes.
    pub async fn follow(&self, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, SandboxError> {
        let script =
            format!("exec tail --bytes=+1 --follow=name --retry --sleep-interval=0.1 {path} 2>/dev/null");
        let (output, input, _) =
            Exec::start(&self.container, &["sh", "-c", &script], false).await?.into_parts();
        // Dropping the input would be taken for the end of the conversation by some engines.
        Ok(Box::new(KeepAlive { reader: stdout(output), _input: input }))
    }

    /// A file's bytes now.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError> {
        let mut slot = self.files.lock().await;
        let mut server = match slot.take() {
            Some(server) => server,
            None => {
                let (output, input, _) =
                    Exec::start(&self.container, &["sh", "-c", SERVE_FILES], true).await?.into_parts();
                FileServer { reader: BufReader::new(stdout(output)), input }
            }
        };
        let broke_off =
            |source| SandboxError::Io { what: format!("reading {path} of the guest broke off"), source };
        // A server that broke off is not put back: the next file begins with another.
        let bytes = server.read(path).await.map_err(broke_off)?;
        *slot = Some(server);
        bytes.ok_or_else(|| SandboxError::Helper {
            what: "reading a file of the guest".to_owned(),
            reason: format!("there is no {path}, or no room to pack it"),
        })
    }

    /// Waits until QEMU has ended; gives its exit status and the end of what it printed.
    pub async fn wait(&self) -> Result<(i64, String), SandboxError> {
        let mut words = Tail::default();
        let mut status = None;
        let mut separator = Separator::new(&self.token);
        let mut attachment = self.attachment.lock().await;
        'container: while let Some(Ok(item)) = attachment.output.next().await {
            for part in separator.feed(&item.into_bytes()) {
                match part {
                    Part::Log(bytes) => words.push(&bytes),
                    Part::Message(StageMessage::Ended(ended)) => {
                        status = Some(ended);
                        break 'container;
                    }
                    Part::Message(_) => {}
                }
            }
        }
        let status = match status {
            Some(status) => status,
            None => self.container.wait().await?.unwrap_or(-1),
        };
        Ok((status, words.or_status(status)))
    }

    /// Removes the container, whatever QEMU is doing.
    pub async fn remove(self) -> Result<(), SandboxError> {
        self.container.remove().await
    }
}

impl FileServer {
    /// `None` where there is no such file.
    async fn read(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        self.input.write_all(format!("{path}\n").as_bytes()).await?;
        self.input.flush().await?;
        let mut size = String::new();
        (&mut self.reader).take(64).read_line(&mut size).await?;
        if size.trim_end() == "missing" {
            return Ok(None);
        }
        let size = size.trim_end().parse::<u64>().ok().filter(|size| *size <= MAX_FILE);
        let size = size.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut packed = vec![0; size as usize];
        self.reader.read_exact(&mut packed).await?;
        let mut bytes = Vec::new();
        zstd::stream::read::Decoder::new(&packed[..])?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

fn stdout(output: super::exec::ExecOutput) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(StreamReader::new(super::exec::split(output).0.boxed()))
}

struct KeepAlive {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    _input: super::exec::ExecInput,
}

impl AsyncRead for KeepAlive {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}
