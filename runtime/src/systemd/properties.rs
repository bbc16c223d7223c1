//! Limits as properties of a unit, so that systemd, which writes all it knows of a group again at each reload, writes the same.

use super::message::Value;
use crate::RuntimeError;
use crate::cgroup::{io_weight, weight};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

/// What has no limit.
const INFINITY: u64 = u64::MAX;
/// The most CPUs or memory nodes of a list.
const MAX_SET: usize = 8192;
/// systemd counts a quota in whole percents of a CPU: in so many microseconds a second.
const PERCENT_US: u64 = 10_000;

/// Properties by name.
pub(super) type Properties = Vec<(String, Value)>;

/// What limits a group now, where an update gives but half of a pair.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present {
    /// memory.max
    pub(crate) memory: Option<i64>,
    /// Of cpu.max.
    pub(crate) quota: Option<i64>,
    /// Of cpu.max.
    pub(crate) period: Option<u64>,
}

fn long(value: i64) -> Value {
    Value::Long(u64::try_from(value).unwrap_or(INFINITY))
}

/// The properties that say what `resources` does.
pub(super) fn of(resources: &LinuxResources, present: Present) -> Result<Properties, RuntimeError> {
    let mut properties = Properties::new();
    let mut set = |name: &str, value| properties.push((name.to_owned(), value));
    if let Some(memory) = resources.memory() {
        of_memory(memory, present, &mut set);
    }
    if let Some(cpu) = resources.cpu() {
        of_cpu(cpu, present, &mut set)?;
    }
    if let Some(pids) = resources.pids() {
        set("TasksMax", long(Some(pids.limit()).filter(|limit| *limit > 0).unwrap_or(-1)));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|n| *n != 0) {
        set("IOWeight", Value::Long(io_weight(weight)));
    }
    for (file, value) in resources.unified().iter().flatten() {
        of_file(file, value, &mut set)?;
    }
    Ok(properties)
}

fn of_memory(memory: &LinuxMemory, present: Present, set: &mut impl FnMut(&str, Value)) {
    let limit = memory.limit().filter(|n| *n != 0);
    if let Some(limit) = limit {
        set("MemoryMax", long(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|n| *n != 0) {
        set("MemoryLow", long(reservation));
    }
    // OCI counts both together. What makes no sense is refused where the file is written.
    match (memory.swap().filter(|n| *n != 0), limit.or(present.memory)) {
        (Some(swap), _) if swap < 0 => set("MemorySwapMax", Value::Long(INFINITY)),
        (Some(swap), Some(limit)) if (0..=swap).contains(&limit) => set("MemorySwapMax", long(swap - limit)),
        _ => {}
    }
}

fn of_cpu(cpu: &LinuxCpu, present: Present, set: &mut impl FnMut(&str, Value)) -> Result<(), RuntimeError> {
    // Above all weights' is that of a group that runs only when nobody else would.
    match (cpu.idle(), cpu.shares().filter(|n| *n != 0)) {
        (Some(1), _) => set("CPUWeight", Value::Long(0)),
        (_, Some(shares)) => set("CPUWeight", Value::Long(weight(shares))),
        _ => {}
    }
    let (quota, period) = (cpu.quota().filter(|n| *n != 0), cpu.period().filter(|n| *n != 0));
    if quota.is_some() || period.is_some() {
        bandwidth(quota.or(present.quota), period.or(present.period), set);
    }
    for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            set(name, Value::Bytes(bits(list)?));
        }
    }
    Ok(())
}

fn bandwidth(quota: Option<i64>, period: Option<u64>, set: &mut impl FnMut(&str, Value)) {
    let period = period.unwrap_or(100_000).max(1);
    set("CPUQuotaPeriodUSec", Value::Long(period));
    let a_second = match quota.map(u64::try_from) {
        Some(Ok(quota)) => quota.saturating_mul(1_000_000).div_ceil(period).next_multiple_of(PERCENT_US),
        _ => INFINITY,
    };
    set("CPUQuotaPerSecUSec", Value::Long(a_second));
}

/// Those of v2's own files that systemd has a property for.
fn of_file(file: &str, value: &str, set: &mut impl FnMut(&str, Value)) -> Result<(), RuntimeError> {
    let wrong = || RuntimeError::Spec(format!("unified limit {file}: {value:?} is no value for it"));
    let number = |text: &str| match text.trim() {
        "max" => Ok(INFINITY),
        number => number.parse::<u64>().map_err(|_| wrong()),
    };
    let name = match file {
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            set(name, Value::Bytes(bits(value)?));
            return Ok(());
        }
        "cpu.max" => {
            let (quota, period) = value.trim().split_once(' ').unwrap_or((value, "100000"));
            let quota = i64::try_from(number(quota)?).unwrap_or(-1);
            bandwidth(Some(quota), Some(number(period)?), set);
            return Ok(());
        }
        _ => return Ok(()),
    };
    set(name, Value::Long(number(value)?));
    Ok(())
}

/// A list like `0-3,7` as systemd takes it: the lowest eight in the first byte.
fn bits(list: &str) -> Result<Vec<u8>, RuntimeError> {
    let wrong = || RuntimeError::Spec(format!("{list:?} is no list of CPUs or memory nodes"));
    let mut bytes = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse().ok().filter(|n| *n < MAX_SET).ok_or_else(wrong);
        let (first, last): (usize, usize) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for at in first..=last {
            bytes.resize(bytes.len().max(at / 8 + 1), 0);
            bytes[at / 8] |= 1 << (at % 8);
        }
    }
    Ok(bytes)
}

/// A property of an annotation `org.systemd.property.NAME`, whose value is written as GVariant does: `'text'`, `true`,
/// `uint64 5`, `['a', 'b']`. A name in `Sec` means the one in `USec`, its value seconds.
pub(super) fn of_annotation(name: &str, text: &str) -> Result<(String, Value), RuntimeError> {
    let wrong =
        || RuntimeError::Spec(format!("annotation org.systemd.property.{name}: {text:?} is no value known here"));
    if name.len() > 100
        || !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err(RuntimeError::Spec(format!("annotation org.systemd.property.{name}: no property's name")));
    }
    let value = value(text).ok_or_else(wrong)?;
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Ok((name.to_owned(), value));
    };
    let seconds = match value {
        Value::Signed(number) => f64::from(number),
        Value::Short(number) => f64::from(number),
        Value::Float(number) => number,
        Value::Long(number) => f64::from(u32::try_from(number).map_err(|_| wrong())?),
        Value::LongSigned(number) => f64::from(u32::try_from(number).map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    let span = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    let us = u64::try_from(span.as_micros()).map_err(|_| wrong())?;
    Ok((format!("{stem}USec"), Value::Long(us)))
}

fn value(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let texts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
        return texts.map(quoted).collect::<Option<_>>().map(Value::Texts);
    }
    if let Some((kind, number)) = text.split_once(' ') {
        let number = number.trim();
        return match kind {
            "boolean" => number.parse().ok().map(Value::Bool),
            "int32" => number.parse().ok().map(Value::Signed),
            "uint32" => number.parse().ok().map(Value::Short),
            "int64" => number.parse().ok().map(Value::LongSigned),
            "uint64" => number.parse().ok().map(Value::Long),
            "double" => number.parse().ok().map(Value::Float),
            _ => quoted(text).map(Value::Text),
        };
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        text if text.contains('.') && !text.starts_with(['\'', '"']) => text.parse().ok().map(Value::Float),
        text => text.parse().ok().map(Value::Signed).or_else(|| quoted(text).map(Value::Text)),
    }
}

/// A text in quotes, without any within.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains([quote, '\\', '\0'])).then(|| inner.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn properties(resources: serde_json::Value, present: Present) -> Vec<String> {
        let all = of(&serde_json::from_value(resources).unwrap(), present).unwrap();
        all.into_iter().map(|(name, value)| format!("{name} {value:?}")).collect()
    }

    #[test]
    fn limits_become_properties() {
        let resources = json!({
            "memory": {"limit": 64, "swap": 96, "reservation": 32},
            "cpu": {"shares": 1024, "quota": 25_000, "period": 50_000, "cpus": "0-1,9", "mems": "0"},
            "pids": {"limit": 44},
            "blockIO": {"weight": 10},
            "unified": {"memory.high": "max"},
        });
        let wanted = [
            "MemoryMax Long(64)",
            "MemoryLow Long(32)",
            "MemorySwapMax Long(32)",
            "CPUWeight Long(39)",
            "CPUQuotaPeriodUSec Long(50000)",
            "CPUQuotaPerSecUSec Long(500000)",
            "AllowedCPUs Bytes([3, 2])",
            "AllowedMemoryNodes Bytes([1])",
            "TasksMax Long(44)",
            "IOWeight Long(1)",
            "MemoryHigh Long(18446744073709551615)",
        ];
        assert_eq!(properties(resources, Present::default()), wanted);
    }

    #[test]
    fn half_of_a_pair_is_completed_by_what_is() {
        let present = Present { memory: Some(100), quota: Some(10_000), period: Some(20_000) };
        assert_eq!(properties(json!({"memory": {"swap": 150}}), present), ["MemorySwapMax Long(50)"]);
        let found = properties(json!({"cpu": {"quota": 333}}), present);
        assert_eq!(found, ["CPUQuotaPeriodUSec Long(20000)", "CPUQuotaPerSecUSec Long(20000)"]);
        let found = properties(json!({"cpu": {"quota": -1}}), present);
        assert_eq!(found[1], "CPUQuotaPerSecUSec Long(18446744073709551615)");
    }

    #[test]
    fn lists_are_bounded() {
        for bad in ["x", "3-1", "0-9999999", "1-"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_are_properties() {
        let read = |name: &str, text: &str| of_annotation(name, text).map(|(name, value)| format!("{name} {value:?}"));
        for (name, text, wanted) in [
            ("CollectMode", "'inactive-or-failed'", "CollectMode Text(\"inactive-or-failed\")"),
            ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec Long(5)"),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec Long(1500000)"),
            ("SendSIGHUP", "true", "SendSIGHUP Bool(true)"),
            ("After", "['a.service', \"b\"]", "After Texts([\"a.service\", \"b\"])"),
            ("Description", "'two words'", "Description Text(\"two words\")"),
            ("OOMScoreAdjust", "-3", "OOMScoreAdjust Signed(-3)"),
        ] {
            assert_eq!(read(name, text).unwrap(), wanted);
        }
        for (name, text) in
            [("X", "what"), ("X", "'a'b'"), ("X", "uint64 -1"), ("a.b", "1"), ("", "1"), ("TSec", "'x'")]
        {
            assert!(read(name, text).is_err(), "{name} {text}");
        }
    }
}
