//! What the `inspect` commands share.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::{compile, template_error};
use serde_json::{Value, json};
use std::process::ExitCode;

/// A container as docker shows it.
pub(crate) fn container(context: &Context, name: &str, sizes: bool) -> Result<Value, CliError> {
    Ok(context.engine()?.inspect(name, sizes)?)
}

/// An image as docker shows it.
pub(crate) fn image(context: &Context, name: &str) -> Result<Value, CliError> {
    let store = context.engine()?.store();
    let image = store.image(name)?;
    let familiar = |list: &[oci::Reference]| list.iter().map(oci::Reference::familiar).collect::<Vec<_>>();
    let mut config = serde_json::to_value(&image.config.config).unwrap_or_default();
    // Docker's clients count on these being there.
    for (field, empty) in [
        ("Env", json!([])),
        ("Cmd", json!(null)),
        ("Entrypoint", json!(null)),
        ("Labels", json!({})),
        ("User", json!("")),
        ("WorkingDir", json!("")),
        ("Volumes", json!(null)),
        ("ExposedPorts", json!(null)),
        ("OnBuild", json!(null)),
    ] {
        if config.get(field).is_none() {
            config[field] = empty;
        }
    }
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": familiar(&image.names),
        "RepoDigests": familiar(&image.repo_digests),
        "Comment": image.config.history.last().and_then(|h| h.comment.clone()).unwrap_or_default(),
        "Created": image.config.created,
        "Author": image.config.author.clone().unwrap_or_default(),
        "Config": config,
        "Architecture": image.config.architecture,
        "Variant": image.config.variant.clone().unwrap_or_default(),
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": { "Name": "overlay", "Data": {
            "LowerDir": store.image_layers(&image).unwrap_or_default().iter().rev()
                .map(|p| p.display().to_string()).collect::<Vec<_>>().join(":") } },
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids },
        "Descriptor": image.manifest,
        "Metadata": {},
    }))
}

/// A volume as docker shows it.
pub(crate) fn volume(context: &Context, name: &str) -> Result<Value, CliError> {
    let store = context.engine()?.store();
    let volume = store.volume(name)?;
    Ok(json!({
        "CreatedAt": volume.created.to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": store.volume_data(&volume.name).display().to_string(),
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    }))
}

/// A network as docker shows it.
pub(crate) fn network(context: &Context, name: &str) -> Result<Value, CliError> {
    let store = context.engine()?.store();
    let row = store.network(name)?;
    let config = &row.config;
    let addresses = store.addresses(&row.name)?;
    let containers: serde_json::Map<String, Value> = addresses
        .into_iter()
        .map(|a| {
            let name = store.container(&a.container).map(|c| c.name).unwrap_or_default();
            (a.container, json!({ "Name": name, "IPv4Address": a.address.to_string() }))
        })
        .collect();
    Ok(json!({
        "Name": row.name,
        "Id": row.id,
        "Created": row.created.to_string(),
        "Scope": "local",
        "Driver": "bridge",
        "IPAM": { "Driver": "default", "Config": [{ "Subnet": config["subnet"], "Gateway": config["gateway"] }] },
        "Internal": config["internal"].as_bool().unwrap_or_default(),
        "Containers": containers,
        "Options": {},
        "Labels": config.get("labels").cloned().unwrap_or_else(|| json!({})),
    }))
}

/// Prints what `look_up` finds for each name: as a JSON list, or each through a template.
pub(crate) fn print(
    context: &mut Context,
    names: &[String],
    format: Option<&str>,
    look_up: impl Fn(&Context, &str) -> Result<Value, CliError>,
) -> Result<ExitCode, CliError> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(compile(text)?),
    };
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        match look_up(context, name) {
            Ok(value) => found.push(value),
            Err(error) => errors.push(error),
        }
    }
    match template {
        Some(template) => {
            for value in &found {
                match template.render(value) {
                    Ok(text) => context.print(text)?,
                    Err(error) => errors.push(template_error(error)),
                }
            }
            // Docker's line for nothing at all.
            if found.is_empty() {
                context.print("")?;
            }
        }
        None if format == Some("json") => {
            context.print(Value::from(found))?;
        }
        None => {
            let text = pretty(&Value::from(found));
            context.print(text)?;
        }
    }
    context.flush()?;
    for error in &errors {
        context.report(error);
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// JSON with docker's indent of four.
fn pretty(value: &Value) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    // Writing to memory does not fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default()
}
