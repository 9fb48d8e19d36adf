//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isokiln_core::boot::{Accelerator, Channel};
use isokiln_core::names::{KindName, PipelineName, ProfileName, StageName};
use isokiln_core::units::{parse_age, parse_size};

/// Isokiln's folder where no other is named.
pub(crate) const DEFAULT_DIR: &str = ".isokiln";

const EXIT_CODES: &str = "\
Exit codes:
  0    everything asked for was done
  1    a stage failed
  2    the command line or the pipeline file is wrong
  3    the environment is not ready; isokiln doctor says why
  4    a boot test failed
  5    a boot test could not decide
  130  cancelled";

/// Build Linux live ISOs in sealed containers, and prove that they boot.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// isokiln's folder: store, runs and lock
    #[arg(long, global = true, value_name = "FOLDER", env = "ISOKILN_DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// Output for people, or JSON on standard output with words for people on standard error
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// How isokiln starts a supervisor: where its viewer was started, as JSON
    #[arg(long, global = true, hide = true, value_name = "PLACE")]
    pub(crate) supervise: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a pipeline and test its ISO
    Build(Build),
    /// Follow a build again whose terminal was closed, or see how one went
    Attach(Attach),
    /// Show what a run is doing, or how it ended
    Status(WhichRun),
    /// Print a stage's log
    Logs(Logs),
    /// Stop a run: when its stage is done, or now
    Cancel(CancelRun),
    /// List all runs
    Runs,
    /// Show what a build would do, and why
    Plan(Plan),
    /// Boot an ISO and check what it promises
    Test(Test),
    /// Show what an ISO is made of, without booting it, and what can be expected of boot tests
    Inspect(Inspect),
    /// List, show, export and remove checkpoints, or go back to one
    #[command(subcommand)]
    Checkpoint(Checkpoint),
    /// Make the next build go on from a stage's checkpoint: what was built on top of it is forgotten
    Rollback(Which),
    /// Open a shell where a stage's script ran: in what it left if it failed in the newest run, or in its checkpoint
    Shell(Shell),
    /// Check every byte of the store
    Verify,
    /// Forget old checkpoints and runs, and free their space
    Gc(Gc),
    /// List the stage kinds, or explain one
    Kinds(Kinds),
    /// Find out from a log why a build failed
    Review(ReviewLog),
    /// Show the agents that review logs: whether each answers, and what it has cost
    Agents,
    /// List the rules that logs are reviewed by, or prove them
    #[command(subcommand)]
    Rules(Rules),
    /// Make, find or remove the builder image
    #[command(subcommand)]
    Image(Image),
    /// Check whether this machine can build and test
    Doctor(Doctor),
    /// Remove what lies in the engine: unpacked layers, package cache, containers of killed runs
    Clean(Clean),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The pipeline file
    pub(crate) file: PathBuf,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) until: Option<StageName>,
    /// Run this stage and those after it again, though nothing has changed
    #[arg(long, value_name = "STAGE")]
    pub(crate) from: Option<StageName>,
    /// Do not boot the ISO
    #[arg(long, conflicts_with = "retest")]
    pub(crate) no_test: bool,
    /// Boot the ISO though the same one has passed before
    #[arg(long)]
    pub(crate) retest: bool,
    /// Also write the boot tests' results into this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Stages that may run at the same time, where the pipeline branches; half as many as there are processors, if
    /// there is memory for them, where not given
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub(crate) parallel: Option<usize>,
    /// Whether a failed stage is run again where its log shows that this can help: as the policy says, after asking, or
    /// not at all
    #[arg(long, value_enum, default_value_t = RecoverMode::Auto)]
    pub(crate) recover: RecoverMode,
    /// Leave the build alone as soon as it has begun; isokiln attach follows it
    #[arg(long, conflicts_with = "foreground")]
    pub(crate) detach: bool,
    /// Build in this process, which ends with its terminal; so do builds under CI
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Compression of new layers; gzip is for container engines before 2021
    #[arg(long, value_enum, default_value_t = LayerCompression::Zstd)]
    pub(crate) compression: LayerCompression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecoverMode {
    Auto,
    Ask,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayerCompression {
    Zstd,
    Gzip,
}

#[derive(Debug, Args)]
pub(crate) struct WhichRun {
    /// The run, or the beginning of its name; the newest that goes on, or else the newest, where none is given
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Ctrl-C ends the looking, not the run; isokiln cancel ends the run.")]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) which: WhichRun,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The stage; the one that runs, or else the one that failed, or else the last one, where none is given
    pub(crate) stage: Option<StageName>,
    /// Go on until the stage has ended; without a stage, until the run has, stage after stage
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The run, or the beginning of its name; the newest that goes on, or else the newest, where none is given
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CancelRun {
    #[command(flatten)]
    pub(crate) which: WhichRun,
    /// Do not wait until the stage in progress is done and saved
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The pipeline file
    pub(crate) file: PathBuf,
    /// Also show which input changed since the newest checkpoint of each stage
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The ISO
    pub(crate) iso: PathBuf,
    /// Boot this older ISO first, on the same machines with the same checks, and say what has changed
    #[arg(long, value_name = "OLD.ISO")]
    pub(crate) baseline: Option<PathBuf>,
    /// Also write the results into this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Machine to boot it on; may be given again; all that the ISO promises to boot on where none is given
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Vec<ProfileName>,
    /// What must hold, for example boot, service:ssh, "screen:login:" or "command:SHELL COMMAND"; may be given
    /// again; what the ISO promises where none is given; `--check help` lists them
    #[arg(long, value_name = "CHECK")]
    pub(crate) check: Vec<String>,
    /// What executes the guest: kvm, tcg, or auto to find out whether KVM runs guests
    #[arg(long, value_name = "ACCELERATOR", default_value = "auto", value_parser = accelerator)]
    pub(crate) accel: Accelerators,
    /// The only way in which the probe may come into the system: credentials, guest-agent, serial-getty,
    /// initramfs-hook, boot-menu or console; the strongest that the ISO allows where none is given
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<Channel>,
    /// Press no key: a boot menu that waits for ever is a failure
    #[arg(long)]
    pub(crate) unattended: bool,
    /// Memory of the machine, for example 2GiB
    #[arg(long, value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Processors of the machine
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) cpus: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The ISO
    pub(crate) iso: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// List all checkpoints
    List,
    /// Show a checkpoint: layers, inputs, artifacts
    Show(Which),
    /// Make the next build go on from a checkpoint: what was built on top of it is forgotten
    Rollback(Which),
    /// End a rollback: the stage runs again if it has changed
    Unpin(Which),
    /// Write a checkpoint into a file that container tools load
    Export(Export),
    /// Remove a stage's checkpoints, or one of them
    Rm(Which),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The stage
    pub(crate) stage: StageName,
    /// The pipeline, where several have such a stage
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<PipelineName>,
    /// Digest of the manifest, or how it begins, where not the newest is meant
    #[arg(long, value_name = "SHA256", value_parser = parse_digest)]
    pub(crate) digest: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) which: Which,
    /// In the root file system itself, not in the builder image with the root file system at $ROOTFS
    #[arg(long)]
    pub(crate) chroot: bool,
    /// A command to run there in place of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Where to: oci-archive:FILE
    #[arg(value_name = "oci-archive:FILE", value_parser = parse_target)]
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Checkpoints to keep of each stage, newest first, and runs to keep; 2 where neither this nor keep.toml says
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub(crate) keep: Option<usize>,
    /// Keep also what is younger than this, for example 36h or 14d
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub(crate) keep_for: Option<Duration>,
    /// Remove further checkpoints, the oldest first, until the store takes no more than this, for example 20GiB; the
    /// newest of each stage stay
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<u64>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Kinds {
    /// The kind to explain
    pub(crate) name: Option<KindName>,
    /// Also look for kinds beside this pipeline file
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReviewLog {
    /// The log, of whatever build; /dev/stdin for standard input
    pub(crate) log: PathBuf,
    /// Name of the stage that printed it
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<StageName>,
    /// Status that it ended with, where that is known
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) exit_code: Option<i64>,
    /// Ask no agent, though some are configured
    #[arg(long)]
    pub(crate) no_agents: bool,
    #[command(flatten)]
    pub(crate) which: WhichRules,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WhichRules {
    /// Also use the rules beside this pipeline file, in review/rules
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// List the rules
    List(WhichRules),
    /// Prove every rule on its own examples, and against all the others
    Test(WhichRules),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make the builder image, or find it
    Build(ImageBuild),
    /// Remove all builder images from the engine; the next build makes one anew
    Rm,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuild {
    /// How to make it; by default the first way that can work
    #[arg(long, value_enum)]
    pub(crate) route: Option<ImageRoute>,
    /// Make it though it is there
    #[arg(long)]
    pub(crate) rebuild: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageRoute {
    /// From a Debian mirror, with mmdebstrap on this machine
    Mirror,
    /// From a Debian mirror, with mmdebstrap in an older builder image
    Container,
    /// With Dockerfile.builder, whose base image comes from a registry
    Dockerfile,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Only list what killed runs have left
    #[arg(long)]
    pub(crate) residue: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// Also remove the store and the runs, and volumes of folders that are gone
    #[arg(long)]
    pub(crate) all: bool,
}

fn parse_target(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("oci-archive:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("write oci-archive:FILE".to_owned()),
    }
}

/// Least digits of a digest that name a checkpoint.
const LEAST_DIGITS: usize = 6;

fn parse_digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (LEAST_DIGITS..=64).contains(&digits.len()) {
        Ok(digits)
    } else {
        Err(format!("give {LEAST_DIGITS} to 64 hexadecimal digits, as checkpoint list shows them"))
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("must be a whole number of at least 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

/// What may execute guests; `None` to find out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accelerators(pub(crate) Option<Accelerator>);

fn accelerator(text: &str) -> Result<Accelerators, String> {
    if text == "auto" {
        Ok(Accelerators(None))
    } else {
        text.parse().map(|wanted| Accelerators(Some(wanted)))
    }
}
