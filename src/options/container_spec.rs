//! From the flags of `run` and `create` to the engine's [`ContainerSpec`].

use super::container::{ContainerOptions, HealthOptions};
use super::mount::{Origin, parse_mount, parse_tmpfs, parse_volume};
use super::{env, values};
use crate::context::Context;
use crate::error::CliError;
use engine::{ContainerSpec, NamespaceMode, RestartPolicy};
use std::collections::BTreeMap;
use std::time::Duration;

impl ContainerOptions {
    /// The container these flags describe. `words` are the image and the command.
    pub(crate) fn spec(&self, words: &[String], detached: bool, context: &Context) -> Result<ContainerSpec, CliError> {
        let Some((image, command)) = words.split_first() else {
            return Err(CliError::new("an image is required"));
        };
        self.check()?;
        let flag = CliError::flag;
        let limits = &self.limits;
        let mut spec = ContainerSpec::new(image);
        spec.command = (!command.is_empty()).then(|| command.to_vec());
        spec.entrypoint = self.entrypoint.as_ref().map(|e| if e.is_empty() { Vec::new() } else { vec![e.clone()] });
        spec.env = env::variables(&self.env_file, &self.env, &|name| context.env(name))?;
        spec.labels = env::labels(&self.label_file, &self.label)?.into_iter().collect();
        spec.annotations = pairs("--annotation", &self.annotation)?;
        spec.sysctls = pairs("--sysctl", &self.sysctl)?;
        spec.name = self.name.clone();
        spec.hostname = self.hostname.clone();
        spec.domainname = self.domainname.clone();
        spec.user = self.user.clone();
        spec.workdir = self.workdir.clone();
        spec.tty = self.tty;
        spec.open_stdin = self.interactive;
        spec.attach = self.streams(detached);
        spec.stdin_once = self.interactive && !detached && spec.attach[0];
        spec.network = match self.network.as_deref().unwrap_or_default().parse() {
            Ok(network) => network,
            Err(never) => match never {},
        };
        spec.network_aliases = self.network_alias.clone();
        spec.ip = self.ip.map(Into::into);
        spec.publish_all = self.publish_all;
        for text in &self.publish {
            spec.publish.extend(network::parse_publish(text).map_err(|e| flag(e.to_string()))?);
        }
        for text in &self.expose {
            spec.expose.extend(network::parse_expose(text).map_err(|e| flag(e.to_string()))?);
        }
        spec.mounts = self.mounts(context)?;
        spec.volumes_from = self.volumes_from.clone();
        spec.restart = values::parse_restart(self.restart.as_deref().unwrap_or_default()).map_err(flag)?;
        spec.init = self.init;
        spec.auto_remove = self.rm;
        spec.read_only = self.read_only;
        spec.privileged = self.privileged;
        spec.cap_add = split_commas(&self.cap_add);
        spec.cap_drop = split_commas(&self.cap_drop);
        spec.security_opt = self.security_opts(context)?;
        spec.ulimits = each(&self.ulimit, values::parse_ulimit)?;
        spec.devices = each(&self.device, values::parse_device)?;
        spec.shm_size_bytes = limits.shm_size;
        spec.stop_signal = self.stop_signal.clone();
        spec.stop_timeout = self.stop_timeout;
        spec.dns = self.dns.clone();
        spec.dns_search = self.dns_search.clone();
        spec.dns_options = self.dns_option.clone();
        spec.add_hosts = each(&self.add_host, check_add_host)?;
        spec.group_add = self.group_add.clone();
        spec.log = values::parse_log(self.log_driver.as_deref(), &self.log_opt).map_err(flag)?;
        spec.healthcheck = self.health.healthcheck()?;
        spec.pid = namespace("--pid", self.pid.as_deref(), true)?;
        spec.ipc = namespace("--ipc", self.ipc.as_deref(), true)?;
        spec.uts = namespace("--uts", self.uts.as_deref(), false)?;
        spec.cgroupns = namespace("--cgroupns", self.cgroupns.as_deref(), false)?;
        spec.userns = self.userns.as_deref().unwrap_or_default().parse().map_err(flag)?;
        spec.cgroup_parent = self.cgroup_parent.clone();
        spec.oom_score_adj = self.oom_score_adj;
        spec.platform = self.platform.clone();
        let resources = &mut spec.resources;
        resources.memory_bytes = limits.memory.filter(|n| *n > 0);
        resources.memory_swap_bytes = limits.memory_swap.filter(|n| *n != 0);
        resources.memory_reservation_bytes = limits.memory_reservation.filter(|n| *n > 0);
        resources.nano_cpus = limits.cpus.filter(|n| *n > 0);
        resources.cpu_shares = limits.cpu_shares.filter(|n| *n > 0);
        resources.cpu_quota_us = limits.cpu_quota.filter(|n| *n != 0);
        resources.cpu_period_us = limits.cpu_period.filter(|n| *n > 0);
        resources.cpuset_cpus = limits.cpuset_cpus.clone();
        resources.cpuset_mems = limits.cpuset_mems.clone();
        resources.pids_limit = limits.pids_limit.filter(|n| *n != 0);
        resources.oom_kill_disable = limits.oom_kill_disable;
        resources.device_cgroup_rules = limits.device_cgroup_rule.clone();
        Ok(spec)
    }

    /// Flags that exclude one another or don't work here.
    fn check(&self) -> Result<(), CliError> {
        if let Some(name) = self.unsupported.given() {
            return Err(CliError::flag(format!("{name} is not supported")));
        }
        let restart = values::parse_restart(self.restart.as_deref().unwrap_or_default()).map_err(CliError::flag)?;
        if self.rm && restart != RestartPolicy::No {
            return Err(CliError::flag("conflicting options: cannot specify both --restart and --rm"));
        }
        let limits = &self.limits;
        if limits.cpus.is_some() && (limits.cpu_quota.is_some() || limits.cpu_period.is_some()) {
            return Err(CliError::flag("conflicting options: --cpus cannot be used with --cpu-quota or --cpu-period"));
        }
        const MIN_MEMORY: u64 = 6 << 20;
        match (limits.memory, limits.memory_swap) {
            (Some(memory), _) if memory > 0 && memory < MIN_MEMORY => {
                return Err(CliError::flag("Minimum memory limit allowed is 6MB"));
            }
            (None | Some(0), Some(swap)) if swap > 0 => {
                return Err(CliError::flag("You should always set the Memory limit when using Memoryswap limit"));
            }
            (Some(memory), Some(swap)) if swap > 0 && u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
                return Err(CliError::flag("Minimum memoryswap limit should be larger than memory limit"));
            }
            _ => {}
        }
        if limits.memory_reservation.zip(limits.memory).is_some_and(|(low, high)| high > 0 && low > high) {
            return Err(CliError::flag("Minimum memory limit can not be less than memory reservation limit"));
        }
        Ok(())
    }

    /// Which of stdin, stdout and stderr a foreground run is attached to.
    fn streams(&self, detached: bool) -> [bool; 3] {
        if detached {
            return [false; 3];
        }
        if self.attach.is_empty() {
            return [self.interactive, true, true];
        }
        ["stdin", "stdout", "stderr"].map(|name| self.attach.iter().any(|a| a.eq_ignore_ascii_case(name)))
    }

    fn mounts(&self, context: &Context) -> Result<Vec<engine::MountSpec>, CliError> {
        if self.volume.is_empty() && self.mount.is_empty() && self.tmpfs.is_empty() {
            return Ok(Vec::new());
        }
        let origin = Origin { directory: context.directory()?, home: context.home() };
        let mut mounts = each(&self.volume, |text| parse_volume(text, &origin))?;
        mounts.extend(each(&self.mount, |text| parse_mount(text, &origin))?);
        mounts.extend(each(&self.tmpfs, parse_tmpfs)?);
        let mut targets: Vec<&str> = mounts.iter().map(|m| m.target.as_str()).collect();
        targets.sort_unstable();
        if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CliError::flag(format!("Duplicate mount point: {}", twice[0])));
        }
        Ok(mounts)
    }

    /// `seccomp=FILE` becomes the file's absolute path: the container may be started from elsewhere.
    fn security_opts(&self, context: &Context) -> Result<Vec<String>, CliError> {
        self.security_opt
            .iter()
            .map(|option| match option.strip_prefix("seccomp=") {
                Some(file) if !matches!(file, "unconfined" | "builtin" | "") && !file.starts_with(['/', '{']) => {
                    Ok(format!("seccomp={}", context.directory()?.join(file).display()))
                }
                _ => Ok(option.clone()),
            })
            .collect()
    }
}

impl HealthOptions {
    /// What the flags say about health, None where they say nothing.
    fn healthcheck(&self) -> Result<Option<oci::Healthcheck>, CliError> {
        let times = [self.health_interval, self.health_timeout, self.health_start_period, self.health_start_interval];
        let given = self.health_cmd.is_some() || self.health_retries.is_some() || times.iter().any(Option::is_some);
        if self.no_healthcheck {
            return match given {
                true => Err(CliError::flag("--no-healthcheck conflicts with --health-* options")),
                false => Ok(Some(oci::Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() })),
            };
        }
        if !given {
            return Ok(None);
        }
        if self.health_retries.is_some_and(|n| n < 0) {
            return Err(CliError::flag("--health-retries cannot be negative"));
        }
        let nanos = |d: Option<Duration>| i64::try_from(d.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX);
        let test = self.health_cmd.as_ref().filter(|c| !c.is_empty());
        Ok(Some(oci::Healthcheck {
            test: test.map(|c| vec!["CMD-SHELL".to_owned(), c.clone()]).unwrap_or_default(),
            interval: nanos(self.health_interval),
            timeout: nanos(self.health_timeout),
            start_period: nanos(self.health_start_period),
            start_interval: nanos(self.health_start_interval),
            retries: self.health_retries.unwrap_or(0),
        }))
    }
}

fn each<T>(list: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, CliError> {
    list.iter().map(|text| parse(text).map_err(CliError::flag)).collect()
}

fn namespace(flag: &str, text: Option<&str>, may_join: bool) -> Result<NamespaceMode, CliError> {
    values::parse_namespace(flag, text.unwrap_or_default(), may_join).map_err(CliError::flag)
}

fn pairs(flag: &str, list: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    list.iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(CliError::flag(format!("invalid argument {text:?} for \"{flag}\": expected NAME=VALUE"))),
        })
        .collect()
}

fn split_commas(list: &[String]) -> Vec<String> {
    list.iter().flat_map(|text| text.split(',')).filter(|c| !c.is_empty()).map(str::to_owned).collect()
}

/// `name:ip`, `name=ip`, `name:host-gateway`; given on as `name:ip`.
fn check_add_host(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("bad format for add-host: {text:?}: {why}");
    let at = text.find(['=', ':']).ok_or_else(|| wrong("expected NAME:IP"))?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() {
        return Err(wrong("no name before the address"));
    }
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: \"{address}\""));
    }
    Ok(format!("{name}:{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Parser, Debug)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        options: ContainerOptions,
        words: Vec<String>,
    }

    fn spec(line: &str) -> Result<ContainerSpec, String> {
        let words: Vec<std::ffi::OsString> = line.split_whitespace().map(Into::into).collect();
        let mut command = Line::command().args_override_self(true);
        command.build();
        let words =
            crate::arguments::normalise(&command, &words, crate::arguments::Flags::First).map_err(|e| e.to_string())?;
        let matches =
            command.try_get_matches_from(std::iter::once("t".into()).chain(words)).map_err(|e| e.to_string())?;
        let line = Line::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        line.options.spec(&line.words, false, &Context::new()).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_become_a_spec() -> Result<(), String> {
        let s = spec("-itm 64m --cpus 1.5 -u 1:2 --cap-add A,B -h web --rm busybox ls -l --rm")?;
        assert_eq!(s.image, "busybox");
        assert_eq!(s.command, Some(vec!["ls".to_owned(), "-l".to_owned(), "--rm".to_owned()]));
        assert_eq!((s.tty, s.open_stdin, s.stdin_once, s.auto_remove), (true, true, true, true));
        assert_eq!(s.resources.memory_bytes, Some(64 << 20));
        assert_eq!(s.resources.nano_cpus, Some(1_500_000_000));
        assert_eq!(s.cap_add, ["A", "B"]);
        assert_eq!(s.hostname.as_deref(), Some("web"));
        let s = spec("--health-cmd true --health-interval 5s --entrypoint= --net host x")?;
        assert_eq!(
            s.healthcheck.map(|h| (h.test, h.interval)),
            Some((vec!["CMD-SHELL".into(), "true".into()], 5_000_000_000))
        );
        assert_eq!(s.entrypoint, Some(Vec::new()));
        assert_eq!(s.network, engine::NetworkMode::Host);
        Ok(())
    }

    #[test]
    fn what_excludes_one_another_is_an_error() {
        for (line, words) in [
            ("--rm --restart always x", "cannot specify both --restart and --rm"),
            ("-m 1m x", "Minimum memory limit allowed is 6MB"),
            ("--memory-swap 1g x", "always set the Memory limit"),
            ("-m 2g --memory-swap 1g x", "should be larger than memory limit"),
            ("--cpus 1 --cpu-quota 5 x", "--cpus cannot be used"),
            ("--no-healthcheck --health-cmd x x", "--no-healthcheck conflicts"),
            ("--gpus all x", "--gpus is not supported"),
            ("-v a1:/x -v b1:/x x", "Duplicate mount point: /x"),
            ("--add-host a x", "bad format for add-host"),
            ("--add-host a:b x", "invalid IP address in add-host: \"b\""),
        ] {
            let error = spec(line).err().unwrap_or_default();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn hosts_may_be_v6() {
        assert_eq!(check_add_host("a:::1"), Ok("a:::1".to_owned()));
        assert_eq!(check_add_host("a=[::1]"), Ok("a:::1".to_owned()));
        assert_eq!(check_add_host("h:host-gateway"), Ok("h:host-gateway".to_owned()));
    }
}
