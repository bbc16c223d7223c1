//! `top`: a container's processes as `ps -ef` shows them.

use crate::{EngineError, Result, TopTable};
use std::fs;
use std::process::{Command, Stdio};

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
/// Clock ticks a second: the kernel's USER_HZ, 100 on every architecture we run on.
const TICKS: u64 = 100;

/// The table of these processes; those that are gone by now are left out.
pub(crate) fn table(pids: &[i32]) -> TopTable {
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    let processes = pids.into_iter().filter_map(row).collect();
    TopTable { titles: TITLES.map(str::to_owned).to_vec(), processes }
}

/// What the host's ps says of these processes. Its table needs a column PID.
pub(crate) fn by_ps(pids: &[i32], options: &[String]) -> Result<TopTable> {
    let ran = Command::new("ps").args(options).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let ran = ran.map_err(|e| EngineError::Invalid(format!("ps cannot be run ({e}): leave its options away")))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let why = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
        return Err(EngineError::Invalid(format!("ps {}: {why}", options.join(" "))));
    }
    let said = String::from_utf8_lossy(&ran.stdout);
    let mut lines = said.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let pid_at = titles.iter().position(|title| title == "PID");
    let pid_at = pid_at.ok_or_else(|| EngineError::Invalid("Couldn't find PID field in ps output".to_owned()))?;
    let processes = lines.map(|line| cells(line, titles.len()));
    let is_ours =
        |cells: &Vec<String>| cells.get(pid_at).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid));
    let processes = processes.filter(is_ours).collect();
    Ok(TopTable { titles, processes })
}

/// The cells of a line, of which the last may hold blanks. What moves a terminal's cursor is left out.
fn cells(line: &str, count: usize) -> Vec<String> {
    let mut cells: Vec<String> = line.split_whitespace().map(|cell| cell.replace(char::is_control, "?")).collect();
    if cells.len() > count && count > 0 {
        let last = cells.split_off(count - 1).join(" ");
        cells.push(last);
    }
    cells
}

/// The processes of a process's pid namespace, as far as they are this user's to look at.
pub(crate) fn in_pid_namespace_of(pid: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(pid) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| namespace(*pid).as_ref() == Some(&wanted)).collect()
}

fn row(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks = number(11) + number(12);
    let age_s = age_s(number(19) / TICKS);
    let command = command(pid).unwrap_or_else(|| format!("[{name}]"));
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|l| l.split_ascii_whitespace().nth(1));
    let share = (ticks / TICKS * 100).checked_div(age_s).unwrap_or(0).min(99);
    Some(vec![
        user_name(uid.unwrap_or("?")),
        pid.to_string(),
        (*fields.get(1)?).to_owned(),
        share.to_string(),
        started(age_s),
        terminal(number(4)),
        clock(ticks / TICKS),
        command,
    ])
}

fn command(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(text.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// The host's name for a uid, as ps shows it.
fn user_name(uid: &str) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_owned())
}

fn age_s(started_s: u64) -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: u64 = uptime.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0);
    uptime.saturating_sub(started_s)
}

/// The time of day (UTC) when it started.
fn started(age_s: u64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let then = now.saturating_sub(i64::try_from(age_s).unwrap_or(0)).rem_euclid(86_400);
    format!("{:02}:{:02}", then / 3600, then / 60 % 60)
}

fn terminal(number: u64) -> String {
    // Major numbers 136 and up are the pty slaves.
    match number >> 8 & 0xff {
        136..=143 => format!("pts/{}", number & 0xff),
        _ => "?".to_owned(),
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_own_process_is_in_the_table() {
        let pid = std::process::id().cast_signed();
        let table = table(&[pid, i32::MAX]);
        assert_eq!(table.processes.len(), 1);
        assert_eq!(table.processes[0][1], pid.to_string());
        assert_eq!(table.titles.len(), table.processes[0].len());
    }
}
