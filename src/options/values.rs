//! Values of single flags of `run`: restart policies, ulimits, devices, namespaces, log options.

use crate::options::units::parse_size;
use engine::{DEFAULT_LOG_FILES, DEFAULT_LOG_SIZE_BYTES, DeviceSpec, LogConfig, NamespaceMode, RestartPolicy, Ulimit};
use std::collections::BTreeMap;

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub(crate) fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    match (name, count) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", None) => Ok(RestartPolicy::OnFailure(0)),
        ("on-failure", Some(count)) => count
            .parse()
            .map(RestartPolicy::OnFailure)
            .map_err(|_| format!("invalid restart policy {text:?}: maximum retry count must be an integer")),
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err(format!("invalid restart policy {text:?}: maximum retry count can only be used with 'on-failure'"))
        }
        _ => Err(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// `name=soft[:hard]`.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let wrong = |why: &str| format!("invalid ulimit {text:?}: {why}");
    let (name, limits) = text.split_once('=').ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
    if !NAMES.contains(&name) {
        return Err(wrong(&format!("unknown name {name:?}: expected one of {}", NAMES.join(", "))));
    }
    let number = |n: &str| match n {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => n.parse::<u64>().map_err(|_| wrong(&format!("{n:?} is no number"))),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft > hard {
        return Err(wrong("ulimit soft limit must be less than or equal to hard limit"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `source[:target[:permissions]]`.
pub(crate) fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    let wrong = |why: &str| format!("invalid device specification: {text}: {why}");
    let permissions = |p: &str| !p.is_empty() && p.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'));
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match fields[..] {
        [source] => (source, source, "rwm"),
        [source, mode] if permissions(mode) => (source, source, mode),
        [source, target] => (source, target, "rwm"),
        [source, target, mode] if permissions(mode) => (source, target, mode),
        [_, _, _] => return Err(wrong("permissions are out of 'r', 'w' and 'm'")),
        _ => return Err(wrong("expected SOURCE[:TARGET[:PERMISSIONS]]")),
    };
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err(wrong("paths of devices are absolute"));
    }
    Ok(DeviceSpec { source: source.into(), target: target.into(), permissions: mode.to_owned() })
}

/// `--pid`, `--ipc`, `--uts`, `--cgroupns`: `private`, `host` and, where it may, `container:X`.
pub(crate) fn parse_namespace(flag: &str, text: &str, may_join: bool) -> Result<NamespaceMode, String> {
    match (text, text.strip_prefix("container:")) {
        ("" | "private", _) => Ok(NamespaceMode::Private),
        ("shareable", _) if flag == "--ipc" => Ok(NamespaceMode::Private),
        ("host", _) => Ok(NamespaceMode::Host),
        (_, Some(other)) if may_join && !other.is_empty() => Ok(NamespaceMode::Container(other.to_owned())),
        _ if may_join => Err(format!("{flag}: invalid mode {text:?}: expected private, host or container:NAME")),
        _ => Err(format!("{flag}: invalid mode {text:?}: expected private or host")),
    }
}

/// `--log-driver` and `--log-opt`.
pub(crate) fn parse_log(driver: Option<&str>, options: &[String]) -> Result<LogConfig, String> {
    let driver = driver.unwrap_or("json-file");
    if !matches!(driver, "json-file" | "local" | "none") {
        return Err(format!("logger: no log driver named '{driver}' is registered: use json-file, local or none"));
    }
    let mut config = LogConfig {
        driver: if driver == "local" { "json-file" } else { driver }.to_owned(),
        max_size_bytes: DEFAULT_LOG_SIZE_BYTES,
        max_files: DEFAULT_LOG_FILES,
        options: BTreeMap::new(),
    };
    for option in options {
        let (key, value) =
            option.split_once('=').ok_or_else(|| format!("invalid logging option {option:?}: expected KEY=VALUE"))?;
        match key {
            _ if driver == "none" => return Err(format!("unknown log opt '{key}' for none log driver")),
            "max-size" if value == "-1" => config.max_size_bytes = 0,
            "max-size" => config.max_size_bytes = parse_log_size(value)?,
            "max-file" => {
                config.max_files = value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| {
                    format!("invalid value for max-file: {value:?}: expected a number from 1 to 1000")
                })?;
            }
            "compress" if matches!(value, "true" | "false") => {}
            "labels" | "env" | "tag" | "labels-regex" | "env-regex" | "mode" | "max-buffer-size" | "compress" => {
                return Err(format!("log opt '{key}={value}' is not supported"));
            }
            _ => return Err(format!("unknown log opt '{key}' for {driver} log driver")),
        }
        config.options.insert(key.to_owned(), value.to_owned());
    }
    Ok(config)
}

/// Decimal, as log sizes are: `10m` is ten million bytes.
fn parse_log_size(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid value for max-size: {text:?}: expected a size such as 10m");
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 1_000),
        Some(b'm') => (&number[..number.len() - 1], 1_000_000),
        Some(b'g') => (&number[..number.len() - 1], 1_000_000_000),
        _ => (number, 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    // parse_size gives the better message for what is no size at all.
    parse_size(text).map_err(|_| bad())?;
    bytes.ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        assert_eq!(parse_restart("no"), Ok(RestartPolicy::No));
        assert_eq!(parse_restart("always"), Ok(RestartPolicy::Always));
        assert_eq!(parse_restart("on-failure:3"), Ok(RestartPolicy::OnFailure(3)));
        for bad in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(parse_restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits() {
        let limit = |name: &str, soft, hard| Ok(Ulimit { name: name.to_owned(), soft, hard });
        assert_eq!(parse_ulimit("nofile=1024"), limit("nofile", 1024, 1024));
        assert_eq!(parse_ulimit("nofile=1:2"), limit("nofile", 1, 2));
        assert_eq!(parse_ulimit("core=-1"), limit("core", u64::MAX, u64::MAX));
        for bad in ["nofile", "files=1", "nofile=2:1", "nofile=x", "nofile="] {
            assert!(parse_ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices() {
        let show = |text| {
            parse_device(text)
                .map(|d| format!("{} {} {}", d.source.display(), d.target.display(), d.permissions))
                .unwrap_or_else(|e| e)
        };
        assert_eq!(show("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(show("/dev/fuse:/dev/x:r"), "/dev/fuse /dev/x r");
        assert_eq!(show("/dev/fuse:rw"), "/dev/fuse /dev/fuse rw");
        for bad in ["fuse", "/dev/fuse:/dev/x:rx", "/a:/b:r:w", ""] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_options() -> Result<(), String> {
        let config = parse_log(None, &["max-size=10m".to_owned(), "max-file=5".to_owned()])?;
        assert_eq!((config.max_size_bytes, config.max_files), (10_000_000, 5));
        assert_eq!(parse_log(Some("local"), &[])?.driver, "json-file");
        for (driver, option) in [
            ("syslog", None),
            ("json-file", Some("max-size=x")),
            ("json-file", Some("nope=1")),
            ("none", Some("max-file=1")),
        ] {
            let options: Vec<String> = option.map(str::to_owned).into_iter().collect();
            assert!(parse_log(Some(driver), &options).is_err(), "{driver} {option:?}");
        }
        Ok(())
    }
}
