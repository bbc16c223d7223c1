//! `ctr init`.

use crate::context::Context;
use crate::error::CliError;
use crate::init::{detect, plan};
use clap::Parser;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a Containerfile for the project of a folder
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
    /// The project
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let folder = &args.folder;
    if !folder.is_dir() {
        return Err(CliError::new(format!("no folder {}", folder.display())));
    }
    let project = detect(folder)?.ok_or_else(|| {
        let known = "go.mod, Cargo.toml, pom.xml, build.gradle, package.json, uv.lock, poetry.lock, environment.yml, \
                     requirements.txt, pyproject.toml or index.html";
        CliError::new(format!("nothing in {} says what kind of project it is", folder.display()))
            .with_hint(format!("known are {known}"))
    })?;
    let plan = plan(&project);
    let others = ["Dockerfile", ".dockerignore"];
    let names = plan.files.iter().map(|(name, _)| *name).chain(others);
    let there: Vec<&str> = names.filter(|name| folder.join(name).exists()).collect();
    if !there.is_empty() && !args.force {
        return Err(CliError::new(format!("{} is there already: nothing was written", there.join(", ")))
            .with_hint("replace what has the same name with --force"));
    }
    for (name, text) in &plan.files {
        let path = folder.join(name);
        let fail = |e: std::io::Error| CliError::io("write", path.display(), &e);
        // Without --force never over anything, not even a file that came this moment.
        let mut file = OpenOptions::new()
            .write(true)
            .create(args.force)
            .truncate(args.force)
            .create_new(!args.force)
            .open(&path)
            .map_err(fail)?;
        file.write_all(text.as_bytes()).map_err(fail)?;
    }
    for reason in &project.reasons {
        context.print(reason)?;
    }
    context.print(format_args!("it listens on port {}: change EXPOSE and settings.env if it does not", project.port))?;
    let names: Vec<&str> = plan.files.iter().map(|(name, _)| *name).collect();
    context.print(format_args!("written: {}", names.join(", ")))?;
    let port = project.port;
    context.print(format_args!(
        "next: ctr build -t app {0} && ctr run --rm -p {port}:{port} --env-file {1} app",
        folder.display(),
        folder.join("settings.env").display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
