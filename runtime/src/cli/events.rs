//! events: what a container uses, as runc's clients read it.

use super::args::Args;
use super::state::State;
use super::{CliError, Global, print};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::time::Duration;

pub(super) fn events(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[("stats", None, false), ("interval", None, true)], usize::MAX)?;
    let state = State::load(global, args.id()?)?;
    let interval = interval(args.value("interval").unwrap_or("5s"))?;
    let Some((_, init)) = state.init() else { return Err(CliError::new("container not running")) };
    if args.flag("stats") {
        return print_stats(&state);
    }
    let mut kills = state.cgroup()?.oom_kills()?;
    loop {
        let time_out = Timespec::try_from(interval).map_err(|_| CliError::new("the interval is too long"))?;
        let ended = match poll(&mut [PollFd::new(&init, PollFlags::IN)], Some(&time_out)) {
            Ok(0) => false,
            Ok(_) => true,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(CliError::new(format!("poll: {errno}"))),
        };
        let now = state.cgroup()?.oom_kills()?;
        for _ in kills..now {
            print(&format!("{}\n", serde_json::json!({"type": "oom", "id": state.id})))?;
        }
        kills = now;
        if ended {
            return Ok(0);
        }
        print_stats(&state)?;
    }
}

fn print_stats(state: &State) -> Result<u8, CliError> {
    let cgroup = state.cgroup()?;
    let stats = cgroup.stats()?;
    let raw: serde_json::Map<_, _> =
        cgroup.memory_details()?.into_iter().map(|(name, number)| (name, number.into())).collect();
    let number = |value: Option<u64>| value.unwrap_or(0);
    let cache = raw.get("cache").or_else(|| raw.get("file")).cloned().unwrap_or(0.into());
    let bytes = |op: &str, value: Option<u64>| serde_json::json!({"op": op, "value": number(value)});
    let data = serde_json::json!({
        "cpu": {
            "usage": {
                "total": number(stats.cpu_usage_ns),
                "kernel": number(stats.cpu_system_ns),
                "user": number(stats.cpu_user_ns),
            },
            "throttling": {},
        },
        "memory": {
            "cache": cache,
            "usage": {"limit": stats.memory_limit_bytes.unwrap_or(u64::MAX), "usage": number(stats.memory_usage_bytes)},
            "raw": raw,
        },
        "pids": {"current": number(stats.pids_current), "limit": number(stats.pids_limit)},
        "blkio": {
            "ioServiceBytesRecursive": [bytes("Read", stats.block_read_bytes), bytes("Write", stats.block_write_bytes)],
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    });
    print(&format!("{}\n", serde_json::json!({"type": "stats", "id": state.id, "data": data})))
}

/// `5s`, `500ms`, `1m`: what Go calls a duration, of one unit.
fn interval(text: &str) -> Result<Duration, CliError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse::<u32>().ok().filter(|n| *n > 0);
    let unit = match &text[digits..] {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        "h" => Some(Duration::from_secs(3600)),
        _ => None,
    };
    let whole = number.zip(unit).and_then(|(number, unit)| unit.checked_mul(number));
    whole.ok_or_else(|| CliError::new(format!("invalid duration interval {text:?}: something like 5s or 500ms")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        assert_eq!(interval("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(interval("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "5", "0s", "s", "-1s", "5d", "99999999999s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
