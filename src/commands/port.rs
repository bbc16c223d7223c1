//! `ctr port`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use engine::PortSpec;
use std::process::ExitCode;

/// List a container's published ports
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The container
    container: String,
    /// Only this port of the container: PORT[/PROTOCOL]
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let ports = context.engine()?.ports(&args.container)?;
    let Some(wanted) = &args.port else {
        for port in &ports {
            for address in addresses(port) {
                context.print(format_args!("{}/{} -> {address}", port.container_port, port.protocol))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let text = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let mut found = false;
    for port in ports.iter().filter(|p| format!("{}/{}", p.container_port, p.protocol) == text) {
        found = true;
        for address in addresses(port) {
            context.print(address)?;
        }
    }
    match found {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CliError::new(format!("no public port '{wanted}' published for {}", args.container))),
    }
}

/// `0.0.0.0:80` and `[::]:80` for a port on all addresses.
fn addresses(port: &PortSpec) -> Vec<String> {
    match port.host_ip {
        None => vec![format!("0.0.0.0:{}", port.host_port), format!("[::]:{}", port.host_port)],
        Some(std::net::IpAddr::V6(ip)) => vec![format!("[{ip}]:{}", port.host_port)],
        Some(ip) => vec![format!("{ip}:{}", port.host_port)],
    }
}
