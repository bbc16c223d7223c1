//! What `ctr build` says of a recipe instead of building it: `--check`, `--call`, `--print`.

use super::build::{Args, described};
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::{Table, printable, printable_lines};
use builder::{BuildRequest, Recipe};
use serde_json::{Value, json};
use std::process::ExitCode;

/// None: a build is wanted.
pub(super) fn instead(
    args: &Args,
    request: &BuildRequest,
    context: &mut Context,
) -> Result<Option<ExitCode>, CliError> {
    let (what, format) = args.call.split_once(',').unwrap_or((&args.call, ""));
    let as_json = match format {
        "" => false,
        "format=json" => true,
        _ => return Err(CliError::flag(format!("invalid --call {:?}: expected WHAT,format=json", args.call))),
    };
    let recipe = || builder::check(None, request).map_err(described);
    let what = if args.check { "check" } else { what };
    Ok(Some(match what {
        _ if args.print.is_some() => print_json(&parts(&recipe()?), context)?,
        "build" => return Ok(None),
        "check" | "lint" => {
            let recipe = builder::check(Some(context.engine()?), request).map_err(described)?;
            check(&recipe, as_json, context)?
        }
        "targets" => targets(&recipe()?, as_json, context)?,
        "outline" => outline(&recipe()?, as_json, context)?,
        other => {
            let known = "build, check, outline or targets";
            return Err(CliError::flag(format!("invalid --call {other:?}: expected {known}")));
        }
    }))
}

fn print_json(value: &Value, context: &mut Context) -> Result<ExitCode, CliError> {
    context.print(serde_json::to_string_pretty(value).unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

/// Docker's words; warnings are a failure.
fn check(recipe: &Recipe, as_json: bool, context: &mut Context) -> Result<ExitCode, CliError> {
    if as_json {
        let warning = |w: &builder::Warning| json!({ "ruleName": w.rule, "detail": w.message, "location": w.location });
        print_json(&json!({ "warnings": recipe.warnings.iter().map(warning).collect::<Vec<_>>() }), context)?;
        return Ok(if recipe.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match recipe.warnings.len() {
        0 => context.print("Check complete, no warnings found.")?,
        1 => context.print("Check complete, 1 warning has been found!")?,
        many => context.print(format_args!("Check complete, {many} warnings have been found!"))?,
    }
    for warning in &recipe.warnings {
        context.print(format_args!("\nWARNING: {}", printable_lines(&warning.to_string())))?;
    }
    Ok(if recipe.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn targets(recipe: &Recipe, as_json: bool, context: &mut Context) -> Result<ExitCode, CliError> {
    if as_json {
        let target = |stage: &builder::Stage| json!({ "name": stage.name, "default": stage.is_target, "base": stage.base, "description": stage.description });
        return print_json(&json!({ "targets": recipe.stages.iter().map(target).collect::<Vec<_>>() }), context);
    }
    context.print("TARGET")?;
    for stage in &recipe.stages {
        let mark = if stage.is_target { " (default)" } else { "" };
        let about = stage.description.as_ref().map(|text| format!("  {text}")).unwrap_or_default();
        context.print(printable(&format!("{}{mark}{about}", stage.name)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the target wants from its caller.
fn outline(recipe: &Recipe, as_json: bool, context: &mut Context) -> Result<ExitCode, CliError> {
    let target = recipe.stages.iter().find(|stage| stage.is_target);
    let name = target.map_or("", |stage| stage.name.as_str());
    let about = target.and_then(|stage| stage.description.clone());
    if as_json {
        let argument = |a: &builder::Argument| json!({ "name": a.name, "value": a.default, "description": a.description, "line": a.line });
        let need = |(id, required): &(String, bool)| json!({ "name": id, "required": required });
        let value = json!({
            "name": name, "description": about,
            "args": recipe.arguments.iter().map(argument).collect::<Vec<_>>(),
            "secrets": recipe.secrets.iter().map(need).collect::<Vec<_>>(),
            "ssh": recipe.ssh.iter().map(need).collect::<Vec<_>>(),
        });
        return print_json(&value, context);
    }
    context.print(format_args!("TARGET:      {}", printable(name)))?;
    if let Some(about) = about {
        context.print(format_args!("DESCRIPTION: {}", printable(&about)))?;
    }
    if !recipe.arguments.is_empty() {
        let mut table = Table::new(["BUILD ARG", "VALUE", "DESCRIPTION"]);
        for argument in &recipe.arguments {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            table.row([argument.name.clone(), text(&argument.default), text(&argument.description)]);
        }
        context.print("")?;
        context.print(table.render(None).trim_end())?;
    }
    for (title, list) in [("SECRET", &recipe.secrets), ("SSH", &recipe.ssh)] {
        if list.is_empty() {
            continue;
        }
        let mut table = Table::new([title, "REQUIRED"]);
        for (id, required) in list {
            table.row([id.clone(), if *required { "true" } else { "" }.to_owned()]);
        }
        context.print("")?;
        context.print(table.render(None).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole recipe as data.
fn parts(recipe: &Recipe) -> Value {
    let stage = |stage: &builder::Stage| {
        let instruction = |i: &builder::Summary| json!({ "instruction": i.keyword, "line": i.line, "text": i.text });
        json!({
            "name": stage.name, "base": stage.base, "target": stage.is_target, "needed": stage.is_needed,
            "description": stage.description,
            "instructions": stage.instructions.iter().map(instruction).collect::<Vec<_>>(),
        })
    };
    json!({ "stages": recipe.stages.iter().map(stage).collect::<Vec<_>>() })
}
