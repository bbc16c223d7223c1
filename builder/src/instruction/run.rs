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

/// One `--mount`. As it stands in the recipe its values are unexpanded: see [`Mount::expanded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// As written.
    text: String,
    pub(crate) kind: MountKind,
    /// Where; without it a secret or agent has a place of its own, anything else is at the working directory.
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
    let parse = |text: &String| Mount::parse(text, None).map_err(|why| source.error(node.span, why));
    let mounts = mounts.iter().map(parse).collect::<Result<_, _>>()?;
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
    if matches!(&command, Command::Exec(arguments) if arguments.first().is_none_or(String::is_empty)) {
        return Err(source.error(node.span, "RUN needs a command: its list is empty"));
    }
    Ok(RunInstruction { command, heredocs: node.heredocs.clone(), mounts, network, insecure })
}

const KEYS: [&str; 16] = [
    "type",
    "target",
    "source",
    "from",
    "ro",
    "rw",
    "id",
    "required",
    "mode",
    "uid",
    "gid",
    "sharing",
    "size",
    "env",
    "readonly",
    "readwrite",
];

/// Turns a value's variables into what they are worth.
type Expand<'e> = &'e mut dyn FnMut(&str) -> Result<String, String>;

impl Mount {
    /// The mount with its variables expanded.
    pub(crate) fn expanded(&self, expand: Expand<'_>) -> Result<Mount, String> {
        Mount::parse(&self.text, Some(expand))
    }

    /// Without `expand`, what variables stand in is not yet known, and not yet checked.
    fn parse(text: &str, expand: Option<Expand<'_>>) -> Result<Mount, String> {
        parse_mount(text, expand).map_err(|why| format!("invalid --mount={text}: {why}"))
    }
}

fn parse_mount(text: &str, mut expand: Option<Expand<'_>>) -> Result<Mount, String> {
    let mut mount = Mount {
        text: text.to_owned(),
        kind: MountKind::Bind,
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
    let mut is_open = false;
    for field in split_csv(text) {
        let (key, written) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let lower = key.to_ascii_lowercase();
        if lower == "from" && written.is_some_and(|text| text.contains('$')) {
            return Err("'from' doesn't support variable expansion, define alias stage instead".to_owned());
        }
        let value = match (written, &mut expand) {
            (Some(text), Some(expand)) => Some(expand(text)?),
            (text, _) => text.map(str::to_owned),
        };
        let is_variable = expand.is_none() && written.is_some_and(|text| text.contains('$'));
        is_open |= is_variable;
        mount.set(&lower, value, is_variable)?;
    }
    if !is_open {
        check_keys(&mount)?;
    }
    Ok(mount)
}

impl Mount {
    /// Takes one `key=value`; of one that `is_variable`, only what may be any text.
    fn set(&mut self, key: &str, value: Option<String>, is_variable: bool) -> Result<(), String> {
        let needed = || value.clone().ok_or_else(|| format!("{key} needs a value"));
        let boolean = || match value.as_deref() {
            None => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| format!("{key}: {text:?} is neither true nor false")),
        };
        let number = |radix| {
            let text = needed()?;
            u32::from_str_radix(&text, radix).map_err(|_| format!("{key}: {text:?} is no number"))
        };
        match key {
            "target" | "dst" | "destination" => self.target = Some(needed()?),
            "source" | "src" => self.source = Some(needed()?),
            "from" => self.from = Some(needed()?),
            "id" => self.id = Some(needed()?),
            "env" => self.env = Some(needed()?),
            key if is_variable && KEYS.contains(&key) => {}
            "type" => self.kind = parse_kind(&needed()?)?,
            "ro" | "readonly" => self.read_only = Some(boolean()?),
            "rw" | "readwrite" => self.read_only = Some(!boolean()?),
            "required" => self.required = boolean()?,
            "mode" => self.mode = Some(number(8)? & 0o7777),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "sharing" => self.sharing = parse_sharing(&needed()?)?,
            "size" => self.size_bytes = Some(parse_size(&needed()?).ok_or("size is no size")?),
            _ => {
                let near = nearest(key, KEYS).map_or(String::new(), |near| format!(": did you mean {near}?"));
                return Err(format!("unknown key {key:?}{near}"));
            }
        }
        Ok(())
    }
}

fn parse_kind(text: &str) -> Result<MountKind, String> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Ok(MountKind::Bind),
        "cache" => Ok(MountKind::Cache),
        "tmpfs" => Ok(MountKind::Tmpfs),
        "secret" => Ok(MountKind::Secret),
        "ssh" => Ok(MountKind::Ssh),
        _ => Err(format!("unknown type {text:?}: expected bind, cache, tmpfs, secret or ssh")),
    }
}

/// Keys that mean nothing for a type are errors, as they are docker's.
fn check_keys(mount: &Mount) -> Result<(), String> {
    let secret_like = matches!(mount.kind, MountKind::Secret | MountKind::Ssh);
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
    match text.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(format!("unknown sharing {text:?}: expected shared, private or locked")),
    }
}

/// `64m`, `1GiB`, bytes without a unit.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
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
