//! update: other limits for a container that exists.

use super::args::{Args, OptionSpec};
use super::state::State;
use super::{CliError, Global};
use oci_spec::runtime::LinuxResources;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fs;
use std::io::Read;

/// The largest file of resources read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

const OPTIONS: &[OptionSpec] = &[
    ("resources", Some('r'), true),
    ("blkio-weight", None, true),
    ("cpu-period", None, true),
    ("cpu-quota", None, true),
    ("cpu-burst", None, true),
    ("cpu-share", None, true),
    ("cpu-rt-period", None, true),
    ("cpu-rt-runtime", None, true),
    ("cpu-idle", None, true),
    ("cpuset-cpus", None, true),
    ("cpuset-mems", None, true),
    ("kernel-memory", None, true),
    ("kernel-memory-tcp", None, true),
    ("memory", None, true),
    ("memory-reservation", None, true),
    ("memory-swap", None, true),
    ("pids-limit", None, true),
    ("l3-cache-schema", None, true),
    ("mem-bw-schema", None, true),
];

/// Option → where its number stands in the resources.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("memory", "memory", "limit"),
    ("memory-reservation", "memory", "reservation"),
    ("memory-swap", "memory", "swap"),
    ("pids-limit", "pids", "limit"),
];

pub(super) fn update(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, OPTIONS, usize::MAX)?;
    let mut state = State::load(global, args.id()?)?;
    if state.status() == "stopped" {
        return Err(CliError::new("cannot update a container that has stopped"));
    }
    if args.value("l3-cache-schema").or(args.value("mem-bw-schema")).is_some() {
        return Err(CliError::new("--l3-cache-schema and --mem-bw-schema: Intel RDT is not supported"));
    }
    let mut wanted = match args.value("resources") {
        Some(file) => read(file)?,
        None => from_options(&args)?,
    };
    // As runc has it: a number that nobody gave.
    if wanted.pointer("/pids/limit") == Some(&Value::from(0))
        && let Some(resources) = wanted.as_object_mut()
    {
        resources.remove("pids");
    }
    let wrong = |e: serde_json::Error| CliError::new(format!("parse the resources: {e}"));
    let resources: LinuxResources = again(&wanted).map_err(wrong)?;
    for warning in state.cgroup()?.update(&resources)? {
        global.log.warn(&warning);
    }
    let mut config: Value = again(&state.config).map_err(wrong)?;
    merge(&mut config["linux"]["resources"], wanted);
    state.config = again(&config).map_err(wrong)?;
    state.save(global)?;
    Ok(0)
}

/// One type's data as another. By way of text: a second reader of the whole config, one that reads values, would be a tenth of
/// the program and so of what each start maps.
fn again<T: DeserializeOwned>(data: &impl Serialize) -> serde_json::Result<T> {
    serde_json::from_slice(&serde_json::to_vec(data)?)
}

fn read(file: &str) -> Result<Value, CliError> {
    let mut text = Vec::new();
    let read = match file {
        "-" => std::io::stdin().take(MAX_BYTES).read_to_end(&mut text),
        path => fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)),
    };
    read.map_err(|e| CliError::new(format!("read {file}: {e}")))?;
    serde_json::from_slice(&text).map_err(|e| CliError::new(format!("parse {file}: {e}")))
}

fn from_options(args: &Args) -> Result<Value, CliError> {
    let mut resources = serde_json::json!({});
    for (option, group, field) in NUMBERS {
        if let Some(number) = args.number::<i64>(option)? {
            resources[*group][*field] = number.into();
        }
    }
    for (option, field) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(list) = args.value(option) {
            resources["cpu"][field] = list.into();
        }
    }
    Ok(resources)
}

/// Lays what is new over what was.
fn merge(into: &mut Value, new: Value) {
    match new {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = Value::Object(Map::new());
            }
            for (name, value) in fields {
                merge(&mut into[name], value);
            }
        }
        Value::Null => {}
        other => *into = other,
    }
}
