//! `ctr info`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::{compile, template_error};
use crate::output::units;
use clap::Parser;
use engine::{ListFilter, RootlessLimits, Status};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show facts about the engine and this machine
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template: '{{.Driver}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let info = facts(context)?;
    match args.format.as_deref() {
        Some("json") => context.print(&info)?,
        Some(format) if !format.is_empty() => {
            let text = compile(format)?.render(&info).map_err(template_error)?;
            context.print(text)?;
        }
        _ => show(context, &info)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(context: &Context) -> Result<Value, CliError> {
    let engine = context.engine()?;
    let containers = engine.list(&ListFilter { all: true, size: false })?;
    let count = |status: Status| containers.iter().filter(|c| c.status == status).count();
    let running = count(Status::Running) + count(Status::Restarting);
    let uname = rustix::system::uname();
    let host = oci::Platform::host();
    let limits = engine.rootless_limits();
    Ok(json!({
        "Rootless": limits.is_some(),
        "SecurityOptions": security_options(limits.is_some()),
        "RootlessLimits": limits.as_ref().map(rootless_limits),
        "Warnings": limits.as_ref().map(warnings).unwrap_or_default(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": count(Status::Paused),
        "ContainersStopped": containers.len() - running - count(Status::Paused),
        "Images": engine.store().images()?.len(),
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupVersion": cgroup_version(),
        "KernelVersion": uname.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSType": host.os,
        "Architecture": uname.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory_bytes(),
        "Name": uname.nodename().to_string_lossy(),
        "DockerRootDir": engine.root().display().to_string(),
        "StateDir": engine.config().state.display().to_string(),
    }))
}

fn show(context: &mut Context, info: &Value) -> Result<(), CliError> {
    let lines = [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Total Memory", "MemTotal"),
        ("Name", "Name"),
        ("Root Dir", "DockerRootDir"),
        ("State Dir", "StateDir"),
    ];
    for (title, field) in lines {
        let value = match &info[field] {
            Value::String(text) => text.clone(),
            Value::Number(bytes) if field == "MemTotal" => units::binary_size(bytes.as_u64().unwrap_or(0)),
            other => other.to_string(),
        };
        context.print(format_args!("{title}: {value}"))?;
    }
    context.print("Security Options:")?;
    for option in info["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut parts = option.split(',').map(|part| part.split_once('=').unwrap_or(("", part)));
        context.print(format_args!(" {}", parts.next().unwrap_or_default().1))?;
        for (name, value) in parts.filter(|(name, _)| *name == "profile") {
            context.print(format_args!("  {}{}: {value}", name[..1].to_uppercase(), &name[1..]))?;
        }
    }
    if let Value::Object(limits) = &info["RootlessLimits"] {
        context.print("Rootless: true")?;
        for (title, field) in [("User Ids", "UserIds"), ("Network", "Network"), ("Cgroup", "Cgroup")] {
            let value = limits.get(field).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
            context.print(format_args!(" {title}: {}", value.unwrap_or_default()))?;
        }
    }
    for warning in info["Warnings"].as_array().into_iter().flatten() {
        context.warn(warning.as_str().unwrap_or_default());
    }
    Ok(())
}

/// As docker names what confines containers.
fn security_options(is_rootless: bool) -> Vec<&'static str> {
    let rootless = is_rootless.then_some("name=rootless");
    let apparmor = engine::has_apparmor().then_some("name=apparmor");
    apparmor.into_iter().chain(["name=seccomp,profile=builtin"]).chain(rootless).chain(["name=cgroupns"]).collect()
}

fn rootless_limits(limits: &RootlessLimits) -> Value {
    json!({
        "UserIds": limits.ids,
        "Network": limits.network.as_deref().unwrap_or("none"),
        "Cgroup": limits.cgroup.as_deref().unwrap_or("none"),
        "Controllers": limits.controllers,
    })
}

/// What containers of this user lack, and what would give it to them.
fn warnings(limits: &RootlessLimits) -> Vec<String> {
    let mut warnings: Vec<String> = limits.single_id.iter().cloned().collect();
    if limits.network.is_none() {
        warnings.push("no network but --network none and host: install pasta (Debian: passt) or slirp4netns".to_owned());
    }
    if limits.cgroup.is_none() {
        warnings.push(
            "limits are not applied and containers can't be paused: no control group (v2) was delegated to this user; \
             with systemd: systemd-run --user --scope ctr ..."
                .to_owned(),
        );
        return warnings;
    }
    for (controller, what) in [("memory", "memory"), ("cpu", "CPU"), ("pids", "process")] {
        if !limits.controllers.iter().any(|name| name == controller) {
            warnings.push(format!("No {what} limit support: the {controller} controller was not delegated"));
        }
    }
    warnings
}

/// The version whose hierarchy has the controllers.
fn cgroup_version() -> &'static str {
    match std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(list) if !list.trim().is_empty() => "2",
        _ => "1",
    }
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.map_or(0, |kb: u64| kb << 10)
}
