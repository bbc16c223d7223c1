//! RUN: its command, network and mounts.

use super::Command;
use super::flags::{Flags, parse_bool};
use super::suggest::nearest;
use crate::error::BuildError;
use crate::parser::{Heredoc, Node, Source};
use crate::request::BuildNetwork;

/// `RUN [--mount=…]… [--network=…] command`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunInstruction {
    pub(crate) command: Command,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network: Option<BuildNetwork>,
    /// `--security=insecure`: all capabilities, no filter.
    pub(crate) insecure: bool,
}

/// One `--mount`. Paths are unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: MountKind,
    /// Where; a secret may leave it out.
    pub(crate) target: Option<String>,
    /// From which stage or image; none is the context (bind) or the builder's own store (cache).
    pub(crate) from: Option<String>,
    pub(crate) source: Option<String>,
    /// As said; the default differs by kind.
    pub(crate) read_only: Option<bool>,
    pub(crate) id: Option<String>,
    pub(crate) required: bool,
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) sharing: Sharing,
    /// Of a tmpfs, in bytes.
    pub(crate) size_bytes: Option<u64>,
    /// Of a secret: the variable it is put into.
    pub(crate) env: Option<String>,
}

/// What a `--mount` mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// Files of the context, a stage or an image; what is written is thrown away.
    Bind,
    /// A folder that lives on between builds.
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who else may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Private,
    Locked,
}

pub(super) fn parse(node: &Node, source: &Source) -> Result<RunInstruction, BuildError> {
    let mut flags = Flags::new(node, source);
    let mounts = flags.many("mount")?;
    let network = flags.one("network")?;
    let security = flags.one("security")?;
    flags.finish()?;
    let mounts = mounts.iter().map(|text| parse_mount(text, node, source)).collect::<Result<_, _>>()?;
    let network = match network.as_deref() {
        None => None,
        Some("default") => Some(BuildNetwork::Default),
        Some("none") => Some(BuildNetwork::None),
        Some("host") => Some(BuildNetwork::Host),
        Some(other) => {
            let message = format!("invalid network mode {other:?}: expected default, none or host");
            return Err(source.error(node.span, message));
        }
    };
    let insecure = match security.as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => {
            let message = format!("invalid security mode {other:?}: expected sandbox or insecure");
            return Err(source.error(node.span, message));
        }
    };
    let command = match &node.json {
        Some(arguments) => Command::Exec(arguments.clone()),
        None => Command::Shell(node.arguments.clone()),
    };
    if matches!(&command, Command::Shell(text) if text.is_empty()) {
        return Err(source.error(node.span, "RUN needs a command"));
    }
    if matches!(&command, Command::Exec(arguments) if arguments.first().is_none_or(String::is_empty)) {
        return Err(source.error(node.span, "RUN needs a command: its list is empty"));
    }
    Ok(RunInstruction { command, heredocs: node.heredocs.clone(), mounts, network, insecure })
}

const KEYS: [&str; 13] =
    ["type", "target", "source", "from", "ro", "rw", "id", "required", "mode", "uid", "gid", "sharing", "size"];

fn parse_mount(text: &str, node: &Node, source: &Source) -> Result<Mount, BuildError> {
    let fail = |why: String| source.error(node.span, format!("invalid --mount={text}: {why}"));
    let fields = split_csv(text);
    let kind_text = fields.iter().find_map(|field| field.strip_prefix("type=")).unwrap_or("bind");
    let kind = match kind_text {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        other => return Err(fail(format!("unknown type {other:?}: expected bind, cache, tmpfs, secret or ssh"))),
    };
    let mut mount = Mount {
        kind,
        target: None,
        from: None,
        source: None,
        read_only: None,
        id: None,
        required: false,
        mode: None,
        uid: None,
        gid: None,
        sharing: Sharing::Shared,
        size_bytes: None,
        env: None,
    };
    for field in &fields {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let lower = key.to_ascii_lowercase();
        let needed = || value.map(str::to_owned).ok_or_else(|| fail(format!("{key} needs a value")));
        let boolean = || match value {
            None => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| fail(format!("{key}: {text:?} is neither true nor false"))),
        };
        let number = |radix| {
            let text = needed()?;
            u32::from_str_radix(&text, radix).map_err(|_| fail(format!("{key}: {text:?} is no number")))
        };
        match lower.as_str() {
            "type" => {}
            "target" | "dst" | "destination" => mount.target = Some(needed()?),
            "source" | "src" => mount.source = Some(needed()?),
            "from" => mount.from = Some(needed()?),
            "ro" | "readonly" => mount.read_only = Some(boolean()?),
            "rw" | "readwrite" => mount.read_only = Some(!boolean()?),
            "id" => mount.id = Some(needed()?),
            "required" => mount.required = boolean()?,
            "mode" => mount.mode = Some(number(8)? & 0o7777),
            "uid" => mount.uid = Some(number(10)?),
            "gid" => mount.gid = Some(number(10)?),
            "sharing" => mount.sharing = parse_sharing(&needed()?).map_err(&fail)?,
            "size" => mount.size_bytes = Some(parse_size(&needed()?).ok_or_else(|| fail("size is no size".into()))?),
            "env" => mount.env = Some(needed()?),
            _ => {
                let near = nearest(&lower, KEYS).map_or(String::new(), |near| format!(": did you mean {near}?"));
                return Err(fail(format!("unknown key {key:?}{near}")));
            }
        }
    }
    check_keys(&mount).map_err(fail)?;
    Ok(mount)
}

/// Keys that mean nothing for a type are errors, as they are docker's.
fn check_keys(mount: &Mount) -> Result<(), String> {
    let secret_like = matches!(mount.kind, MountKind::Secret | MountKind::Ssh);
    if mount.target.is_none() && !secret_like {
        return Err("no target".to_owned());
    }
    if mount.from.is_some() && !matches!(mount.kind, MountKind::Bind | MountKind::Cache) {
        return Err("from is for bind and cache mounts".to_owned());
    }
    if mount.size_bytes.is_some() && mount.kind != MountKind::Tmpfs {
        return Err("size is for tmpfs mounts".to_owned());
    }
    if mount.env.is_some() && mount.kind != MountKind::Secret {
        return Err("env is for secret mounts".to_owned());
    }
    if mount.required && !secret_like {
        return Err("required is for secret and ssh mounts".to_owned());
    }
    if mount.kind == MountKind::Secret && mount.id.is_none() && mount.source.is_none() && mount.target.is_none() {
        return Err("a secret needs an id or a target".to_owned());
    }
    Ok(())
}

fn parse_sharing(text: &str) -> Result<Sharing, String> {
    match text {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(format!("unknown sharing {text:?}: expected shared, private or locked")),
    }
}

/// `64m`, `1g`, bytes without a unit.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        b't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Comma-separated fields, a field in double quotes may hold commas.
fn split_csv(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields.into_iter().map(|field| field.trim().to_owned()).filter(|field| !field.is_empty()).collect()
}
