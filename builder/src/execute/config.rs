//! Instructions that change the image's config alone.

use super::Build;
use super::state::StageState;
use crate::instruction::{Command, HealthcheckSpec, Instruction};
use crate::step_error::{StepError, StepResult};
use oci::Healthcheck;
use serde_json::Value;
use std::collections::BTreeSet;

impl Build<'_> {
    pub(super) fn configure(
        &self,
        state: &mut StageState,
        instruction: &Instruction,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<()> {
        let created_by = match instruction {
            Instruction::Arg(names) => self.declare_args(state, names, unset)?,
            Instruction::Env(pairs) => {
                let pairs = expand_pairs(state, pairs, unset)?;
                pairs.iter().for_each(|(name, value)| state.set_env(name, value));
                format!("ENV {}", joined(&pairs))
            }
            Instruction::Label(pairs) => {
                let pairs = expand_pairs(state, pairs, unset)?;
                let text = format!("LABEL {}", joined(&pairs));
                state.config.config.labels.extend(pairs);
                text
            }
            Instruction::User(text) => {
                let user = state.word(text, unset)?;
                user.parse::<oci::UserSpec>().map_err(|error| StepError::wrong(error.to_string()))?;
                state.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Instruction::Cmd(command) => {
                let arguments = arguments(state, command);
                let text = format!("CMD {}", json(&arguments));
                state.config.config.cmd = Some(arguments);
                state.cmd_set = true;
                text
            }
            Instruction::Entrypoint(command) => {
                let arguments = arguments(state, command);
                let text = format!("ENTRYPOINT {}", json(&arguments));
                state.config.config.entrypoint = Some(arguments);
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                text
            }
            Instruction::Expose(texts) => expose(state, texts, unset)?,
            Instruction::Volume(texts) => {
                let mut paths = Vec::new();
                for text in texts {
                    let path = state.word(text, unset)?;
                    if path.trim().is_empty() {
                        return Err(StepError::wrong("VOLUME specified can not be an empty string"));
                    }
                    state.config.config.volumes.insert(path.clone(), Value::Object(serde_json::Map::new()));
                    paths.push(path);
                }
                format!("VOLUME {}", json(&paths))
            }
            Instruction::StopSignal(text) => {
                let signal = state.word(text, unset)?;
                if linux::signal::parse(&signal).is_none() {
                    let hint = "write a name as SIGTERM, or a number from 1 to 64";
                    return Err(StepError::with_hint(format!("invalid signal: {signal}"), hint));
                }
                let text = format!("STOPSIGNAL {signal}");
                state.config.config.stop_signal = Some(signal);
                text
            }
            Instruction::Shell(shell) => {
                state.config.config.shell = Some(shell.clone());
                format!("SHELL {}", json(shell))
            }
            Instruction::Healthcheck(spec) => {
                let (check, text) = healthcheck(spec.as_ref());
                state.config.config.healthcheck = Some(check);
                text
            }
            Instruction::Onbuild(text) => {
                state.config.config.on_build.push(text.clone());
                format!("ONBUILD {text}")
            }
            Instruction::Maintainer(name) => {
                state.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Instruction::From(_) | Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => {
                return Ok(());
            }
        };
        state.add_history(created_by, None, false);
        Ok(())
    }

    /// ARG: `--build-arg` beats the default, which beats the value from before the first FROM, which beats that of the
    /// stage this one is built on.
    fn declare_args(
        &self,
        state: &mut StageState,
        names: &[(String, Option<String>)],
        unset: &mut BTreeSet<String>,
    ) -> StepResult<String> {
        let mut shown = Vec::new();
        for (name, default) in names {
            let given = self.request.build_args.iter().rev().find(|(given, _)| given == name);
            let value = match (given, default) {
                (Some((_, value)), _) => Some(value.clone()),
                (None, Some(default)) => Some(state.word(default, unset)?),
                (None, None) => self.plan.global_args.get(name).cloned().or_else(|| self.automatic_arg(name)),
            };
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            state.args.extend(value.map(|value| (name.clone(), value)));
            if !state.declared.contains(name) {
                state.declared.push(name.clone());
            }
        }
        Ok(format!("ARG {}", shown.join(" ")))
    }
}

/// All values against the variables as they were before the instruction.
fn expand_pairs(
    state: &StageState,
    pairs: &[(String, String)],
    unset: &mut BTreeSet<String>,
) -> StepResult<Vec<(String, String)>> {
    let pair = |(name, value): &(String, String)| Ok((state.word(name, unset)?, state.word(value, unset)?));
    pairs.iter().map(pair).collect()
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn arguments(state: &StageState, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(arguments) => arguments.clone(),
        Command::Shell(text) => state.shell().into_iter().chain([text.clone()]).collect(),
    }
}

/// Ports as `80/tcp`; a range is one entry a port.
fn expose(state: &mut StageState, texts: &[String], unset: &mut BTreeSet<String>) -> StepResult<String> {
    let mut shown = Vec::new();
    for text in texts {
        for port in state.words(text, unset)? {
            let ports = parse_ports(&port).ok_or_else(|| {
                let hint = "write PORT, PORT-PORT, PORT/tcp or PORT/udp";
                StepError::with_hint(format!("invalid containerPort: {port}"), hint)
            })?;
            for port in ports {
                state.config.config.exposed_ports.insert(port, Value::Object(serde_json::Map::new()));
            }
            shown.push(port);
        }
    }
    Ok(format!("EXPOSE {}", shown.join(" ")))
}

/// `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`, of which the container's port counts: where it is published is not the image's
/// to say.
fn parse_ports(text: &str) -> Option<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let ports = match ports.rsplit_once(':') {
        None => ports,
        Some((host, ports)) => {
            let (ip, host) = host.rsplit_once(':').unwrap_or(("", host));
            let is_ip = ip.is_empty() || ip.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
            ((host.is_empty() || parse_range(host).is_some()) && is_ip).then_some(ports)?
        }
    };
    let (first, last) = parse_range(ports)?;
    Some((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn healthcheck(spec: Option<&HealthcheckSpec>) -> (Healthcheck, String) {
    let Some(spec) = spec else {
        let check = Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
        return (check, "HEALTHCHECK NONE".to_owned());
    };
    let (test, text) = match &spec.command {
        Command::Shell(text) => (vec!["CMD-SHELL".to_owned(), text.clone()], text.clone()),
        Command::Exec(arguments) => {
            (std::iter::once("CMD".to_owned()).chain(arguments.iter().cloned()).collect(), json(arguments))
        }
    };
    let check = Healthcheck {
        test,
        interval: spec.interval,
        timeout: spec.timeout,
        start_period: spec.start_period,
        start_interval: spec.start_interval,
        retries: spec.retries,
    };
    (check, format!("HEALTHCHECK CMD {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_checked() {
        let ports = |text: &str| parse_ports(text).map(|ports| ports.join(" "));
        assert_eq!(ports("80").as_deref(), Some("80/tcp"));
        assert_eq!(ports("53/UDP").as_deref(), Some("53/udp"));
        assert_eq!(ports("8000-8002/tcp").as_deref(), Some("8000/tcp 8001/tcp 8002/tcp"));
        for (mapped, port) in [("1:2", "2/tcp"), ("127.0.0.1:8080:80/udp", "80/udp"), ("[::1]::80/", "80/tcp")] {
            assert_eq!(ports(mapped).as_deref(), Some(port));
        }
        for bad in ["", "0", "65536", "a", "80/x", "9-8", "1:", "a:2", "x:1:2", "-1"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
