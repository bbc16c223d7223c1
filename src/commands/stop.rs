//! `ctr stop`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Stop running containers: a signal, a while to end, then SIGKILL
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before killing it; -1 waits without end
    #[arg(short, long, alias = "time", value_name = "SECONDS")]
    timeout: Option<i64>,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    side_by_side(context, &args.containers, |engine, name| engine.stop(name, args.signal.as_deref(), args.timeout))
}

/// Does `action` for each container at once, so that ten slow ones take as long as one; prints in the order given.
pub(crate) fn side_by_side(
    context: &mut Context,
    names: &[String],
    action: impl Fn(&engine::Engine, &str) -> engine::Result<()> + Sync,
) -> Result<ExitCode, CliError> {
    /// Threads at once: they only wait.
    const AT_ONCE: usize = 32;
    let engine = context.engine()?;
    let mut results = Vec::with_capacity(names.len());
    for some in names.chunks(AT_ONCE) {
        if let [one] = some {
            results.push(action(engine, one));
            continue;
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|name| scope.spawn(|| action(engine, name))).collect();
            for thread in running {
                results.push(thread.join().unwrap_or_else(|_| Err(engine::EngineError::Invalid("a thread failed".into()))));
            }
        });
    }
    let mut results = results.into_iter();
    context.for_each(names, |_, name| match results.next() {
        Some(Err(error)) => Err(error.into()),
        _ => Ok(Some(name.to_owned())),
    })
}
