//! The subcommands.

mod reference;
mod show;

pub use reference::ReferenceError;

use crate::config::{Choices, ConfigError, Format};
use crate::pipeline;
use crate::ring::{Counters, OpenError, Snapshot, wire};
use crate::shutdown::Shutdown;
use crate::sink::{HealthFile, Sinks};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use reference::ReferenceCommand;
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::PathBuf;
use thiserror::Error;
use tracing::info;

/// See what a machine-learning model does in production.
#[derive(Debug, Parser)]
#[command(name = "mlwatch", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the rings of a directory and write a report for every model and period.
    Run(Run),
    /// Make, show and merge what reports are compared with.
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// Show a ring: identity, schema, positions, fill, counters. Changes nothing.
    Inspect {
        /// The ring file, such as /dev/shm/mlwatch/digits.0.ring.
        ring: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Run {
    /// Directory of the rings [default: /dev/shm/mlwatch]
    #[arg(long, env = "MLWATCH_DIR")]
    dir: Option<PathBuf>,
    /// Length of a reporting period, such as 60s or 5m [default: the producer's wish, or 60s]
    #[arg(long, env = "MLWATCH_PERIOD")]
    period: Option<String>,
    /// Rows in the sample that quantiles come from [default: the producer's wish, or 16384]
    #[arg(long, env = "MLWATCH_RESERVOIR")]
    reservoir: Option<u64>,
    /// Directory of the report files [default: mlwatch-metrics]
    #[arg(long, env = "MLWATCH_OUTPUT")]
    output: Option<PathBuf>,
    /// Directory for what must survive a crash of the sidecar [default: checkpoint in the output directory]
    #[arg(long, env = "MLWATCH_CHECKPOINT")]
    checkpoint: Option<PathBuf>,
    /// Directory of the references (*.mlwref) that reports are compared with, by model and version [default: none]
    #[arg(long, env = "MLWATCH_REFERENCE")]
    reference: Option<PathBuf>,
    /// Report formats [default: native]
    #[arg(long, env = "MLWATCH_FORMAT", value_enum, value_delimiter = ',')]
    format: Option<Vec<Format>>,
    /// agent_id in MLWatcher's format [default: the host's name]
    #[arg(long, env = "MLWATCH_AGENT_ID")]
    agent_id: Option<String>,
    /// TOML file with the same names, see docs/operations.md
    #[arg(long, env = "MLWATCH_CONFIG")]
    config: Option<PathBuf>,
}

/// What can end a subcommand early.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {source}", ring.display())]
    Ring { ring: PathBuf, source: OpenError },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("{0} reports were lost; the log says which and why")]
    ReportsLost(u64),
}

impl CliError {
    /// As in sysexits.h: 78 configuration, 69 unavailable, 66 no input, 74 input or output.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_) => 78,
            CliError::Ring { .. } | CliError::Io(_) => 69,
            CliError::Reference(why) => why.exit_code(),
            CliError::ReportsLost(_) => 74,
        }
    }
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Reference(command) => Ok(command.run()?),
            Command::Inspect { ring, json } => inspect(ring, json),
        }
    }
}

impl Run {
    fn run(self) -> Result<(), CliError> {
        let file = self.config.as_deref().map(Choices::read).transpose()?.unwrap_or_default();
        let settings = self.choices().or(file).settle()?;
        let sinks = Sinks::start(settings.sinks()?)?;
        info!(output = %settings.output.display(), formats = ?settings.formats, "mlwatch {}", env!("CARGO_PKG_VERSION"));
        let health_file = HealthFile::new(&settings.output);
        let lost = pipeline::run(settings.pipeline, sinks, health_file, &Shutdown::on_signals()?)?;
        info!(reports_lost = lost, "stopped");
        if lost == 0 { Ok(()) } else { Err(CliError::ReportsLost(lost)) }
    }

    fn choices(self) -> Choices {
        Choices {
            dir: self.dir,
            period: self.period,
            reservoir: self.reservoir,
            output: self.output,
            checkpoint: self.checkpoint,
            reference: self.reference,
            drift: None,
            alerts: None,
            r#override: None,
            histograms: None,
            format: self.format,
            agent_id: self.agent_id,
            rotation: None,
            limits: None,
        }
    }
}

fn inspect(ring: PathBuf, json: bool) -> Result<(), CliError> {
    let snapshot = Snapshot::read(&ring).map_err(|source| CliError::Ring { ring, source })?;
    let (sampled_rows, profile_bytes_at_most) = pipeline::sample_and_profile_by_default(&snapshot.schema);
    let memory = Memory { sampled_rows, profile_bytes_at_most };
    let text = match json {
        true => serde_json::to_string_pretty(&Inspected { snapshot, memory }).map_err(io::Error::from)?,
        false => describe(&snapshot, &memory),
    };
    writeln!(io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

/// What a ring's profile takes by default.
#[derive(Serialize)]
struct Memory {
    sampled_rows: u64,
    profile_bytes_at_most: u64,
}

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    snapshot: Snapshot,
    memory: Memory,
}

fn describe(s: &Snapshot, memory: &Memory) -> String {
    let schema = &s.schema;
    let named = |names: &[String]| {
        let shown: Vec<String> = names.iter().take(8).map(|name| quoted(name)).collect();
        let more = if names.len() > shown.len() { ", …" } else { "" };
        format!("{}  {}{more}", names.len(), shown.join(", "))
    };
    let attached = |is: bool, epoch: u64, beat: u64| {
        format!("{}, epoch {epoch}, last seen {}", if is { "attached" } else { "not attached" }, time(beat))
    };
    let mut producer = attached(s.producer_attached, s.producer_epoch, s.producer_heartbeat_ns);
    if !s.producer_attached {
        producer += if s.closed { ", closed in good order" } else { ", gone without closing" };
    }
    let fill = match s.used {
        Some(used) => format!("{used} of {} bytes ({:.1} %)", s.capacity, 100.0 * used as f64 / s.capacity as f64),
        None => "positions unsound".into(),
    };
    let lines = [
        ("ring", format!("{}  format {}  {} bytes", quoted(&s.path.to_string_lossy()), s.format, s.file_bytes)),
        ("made", format!("{} by pid {} uid {}  uuid {}", time(s.created_ns), s.creator_pid, s.creator_uid, s.uuid)),
        ("model", format!("{}  version {:?}  instance {:?}", quoted(&schema.model), schema.version, schema.instance)),
        ("task", format!("{:?}, threshold {}", schema.task, schema.threshold).to_lowercase()),
        ("classes", format!("{}  ({:?})", named(&schema.class_names), schema.proba_dtype)),
        ("features", format!("{}  ({:?})", named(&schema.feature_names), schema.feature_dtype)),
        ("wishes", wishes(s)),
        ("memory", memory.to_string()),
        ("producer", producer),
        ("sidecar", attached(s.consumer_attached, s.consumer_epoch, s.consumer_heartbeat_ns)),
        ("positions", format!("head {}  tail {}", s.head, s.tail)),
        ("fill", fill),
        ("written", format!("{} records, {} rows, {} bytes", s.counters.records, s.counters.rows, s.counters.bytes)),
        ("dropped", dropped(&s.counters)),
        ("health", format!("{} resyncs{}", s.resyncs, if s.quarantined { ", QUARANTINED" } else { "" })),
    ];
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<10} {value}");
        text
    })
}

/// A producer's text must not command the terminal.
fn quoted(text: &str) -> String {
    text.escape_debug().to_string()
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { sampled_rows: rows, profile_bytes_at_most: bytes } = self;
        write!(f, "a profile takes {bytes} bytes at most, with {rows} sampled rows (by default, docs/operations.md)")
    }
}

fn wishes(s: &Snapshot) -> String {
    let period = s.schema.period.map(|period| format!("period {period:?}"));
    let reservoir = s.schema.reservoir_rows.map(|rows| format!("reservoir {rows} rows"));
    let wishes: Vec<String> = period.into_iter().chain(reservoir).collect();
    if wishes.is_empty() { "none".into() } else { wishes.join(", ") }
}

fn dropped(counters: &Counters) -> String {
    let reason =
        |(i, name): (usize, &&str)| format!("{name} {}/{}", counters.dropped_records[i], counters.dropped_rows[i]);
    let reasons: Vec<String> = wire::DROP_REASON_NAMES.iter().enumerate().map(reason).collect();
    format!("records/rows: {}", reasons.join(", "))
}

fn time(ns: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) if ns > 0 => time.to_string(),
        _ => "never".into(),
    }
}
