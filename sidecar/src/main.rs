//! Arguments → settings → run → exit code. The only place that prints an error.

use clap::Parser;
use mlwatch::cli::Cli;
use mlwatch::log::BoundedStderr;
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

const USAGE: u8 = 64;
const CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    let level = std::env::var("MLWATCH_LOG").unwrap_or_else(|_| "info".into());
    let Ok(max_level) = level.parse::<LevelFilter>() else {
        eprintln!("mlwatch: MLWATCH_LOG is {level:?}, want error, warn, info, debug, trace or off");
        return CONFIGURATION.into();
    };
    let log = tracing_subscriber::fmt().with_max_level(max_level).with_target(false);
    log.with_ansi(stderr().is_terminal()).with_writer(BoundedStderr::default()).init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mlwatch: {error}");
            error.exit_code().into()
        }
    }
}
