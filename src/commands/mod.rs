//! The commands, one a file: its `Args` (whose doc comment is the help text) and its `run`. The table below is all that
//! ties them together.

use crate::arguments::Flags;
use crate::context::Context;
use crate::error::CliError;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// A command: its names, its definition, what it does.
pub(crate) struct CommandEntry {
    /// The first is the usual one; `container ls` is one of a group.
    pub(crate) names: &'static [&'static str],
    /// Where flags may stand.
    pub(crate) flags: Flags,
    /// Shown first in the help.
    pub(crate) common: bool,
    /// Its definition.
    pub(crate) build: fn() -> Command,
    /// What it does.
    pub(crate) run: fn(&ArgMatches, &mut Context) -> Result<ExitCode, CliError>,
}

/// Groups of commands, with what they are about.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage the build cache"),
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("manifest", "Manage manifests and manifest lists"),
    ("network", "Manage networks"),
    ("system", "Manage the engine"),
    ("volume", "Manage volumes"),
];

macro_rules! commands {
    ($( $module:ident [$($name:literal),+] $flags:ident $common:literal; )*) => {
        $( mod $module; )*

        /// Every command.
        pub(crate) const COMMANDS: &[CommandEntry] = &[
            $( CommandEntry {
                names: &[$($name),+],
                flags: Flags::$flags,
                common: $common,
                build: <$module::Args as CommandFactory>::command,
                run: |matches, context| $module::run(parsed::<$module::Args>(matches)?, context),
            }, )*
        ];
    };
}

fn parsed<A: FromArgMatches>(matches: &ArgMatches) -> Result<A, CliError> {
    A::from_arg_matches(matches).map_err(|e| CliError::flag(e.to_string()))
}

commands! {
    run ["run", "container run"] First true;
    exec ["exec", "container exec"] First true;
    ps ["ps", "container ls", "container list", "container ps"] Anywhere true;
    build ["build", "image build"] Anywhere true;
    pull ["pull", "image pull"] Anywhere true;
    push ["push", "image push"] Anywhere true;
    images ["images", "image ls", "image list"] Anywhere true;
    login ["login"] Anywhere true;
    logout ["logout"] Anywhere true;
    version ["version"] Anywhere true;
    info ["info", "system info"] Anywhere true;
    attach ["attach", "container attach"] Anywhere false;
    create ["create", "container create"] First false;
    copy ["copy", "image copy"] Anywhere false;
    export ["export", "container export"] Anywhere false;
    history ["history", "image history"] Anywhere false;
    image_diff ["image diff"] Anywhere false;
    image_tree ["image tree"] Anywhere false;
    import ["import", "image import"] Anywhere false;
    init ["init"] Anywhere true;
    inspect ["inspect"] Anywhere false;
    inspect_container ["container inspect"] Anywhere false;
    inspect_image ["image inspect"] Anywhere false;
    kill ["kill", "container kill"] Anywhere false;
    load ["load", "image load"] Anywhere false;
    logs ["logs", "container logs"] Anywhere false;
    pause ["pause", "container pause"] Anywhere false;
    port ["port", "container port"] Anywhere false;
    rename ["rename", "container rename"] Anywhere false;
    restart ["restart", "container restart"] Anywhere false;
    rm ["rm", "container rm", "container remove"] Anywhere false;
    rmi ["rmi", "image rm", "image remove"] Anywhere false;
    save ["save", "image save"] Anywhere false;
    search ["search"] Anywhere false;
    start ["start", "container start"] Anywhere false;
    stop ["stop", "container stop"] Anywhere false;
    tag ["tag", "image tag"] Anywhere false;
    top ["top", "container top"] First false;
    unpause ["unpause", "container unpause"] Anywhere false;
    wait ["wait", "container wait"] Anywhere false;
    builder_du ["builder du"] Anywhere false;
    builder_prune ["builder prune"] Anywhere false;
    completion ["completion"] Anywhere false;
    container_prune ["container prune"] Anywhere false;
    image_prune ["image prune"] Anywhere false;
    referrers ["image referrers"] Anywhere false;
    manifest_create ["manifest create"] Anywhere false;
    manifest_inspect ["manifest inspect"] Anywhere false;
    manifest_push ["manifest push"] Anywhere false;
    manifest_rm ["manifest rm"] Anywhere false;
    network_ls ["network ls", "network list"] Anywhere false;
    network_inspect ["network inspect"] Anywhere false;
    system_check ["system check"] Anywhere false;
    system_df ["system df"] Anywhere false;
    system_prune ["system prune"] Anywhere false;
    volume_create ["volume create"] Anywhere false;
    volume_inspect ["volume inspect"] Anywhere false;
    volume_ls ["volume ls", "volume list"] Anywhere false;
    volume_prune ["volume prune"] Anywhere false;
    volume_rm ["volume rm", "volume remove"] Anywhere false;
}

mod build_call;
mod build_output;
mod build_request;
mod builder_filter;
mod foreground;
mod image_names;
mod inspection;
mod pruning;
mod pulling;
