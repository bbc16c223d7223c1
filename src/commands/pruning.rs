//! What the prune commands share: the question before, the lists of what went, and how much space that freed.

use super::rmi::{print_removed, running};
use crate::context::Context;
use crate::error::CliError;
use crate::output::units;
use crate::terminal::prompt;
use builder::{CacheItem, CachePrune};
use engine::{DiskUsage, ListFilter};
use std::process::ExitCode;

/// Asks first (unless `force`) about all that is to go, then removes, then says how much space that freed.
pub(crate) fn prune(
    context: &mut Context,
    force: bool,
    what: &[&str],
    remove: impl FnOnce(&mut Context) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let listed = match what {
        [only] => format!(" {only}."),
        several => several.iter().fold(":".to_owned(), |text, one| format!("{text}\n  - {one}")) + "\n",
    };
    if !force && !prompt::confirm(&format!("WARNING! This will remove{listed}"))? {
        return Ok(ExitCode::SUCCESS);
    }
    let before = bytes(&context.engine()?.disk_usage()?);
    remove(context)?;
    context.engine()?.store().collect_garbage()?;
    let after = bytes(&context.engine()?.disk_usage()?);
    context.print(format_args!("Total reclaimed space: {}", units::size(before.saturating_sub(after))))?;
    Ok(ExitCode::SUCCESS)
}

fn bytes(usage: &DiskUsage) -> u64 {
    [usage.images, usage.containers, usage.volumes, usage.build_cache].iter().map(|kind| kind.bytes).sum()
}

/// Removes all containers that do not run.
pub(crate) fn containers(context: &mut Context) -> Result<(), CliError> {
    let list = context.engine()?.list(&ListFilter { all: true, size: false })?;
    let ids =
        list.into_iter().filter(|container| !container.status.is_active()).map(|container| container.id).collect();
    removed(context, "Deleted Containers:", ids, |context, id| Ok(context.engine()?.remove(id, false, false)?))
}

/// Removes the volumes that no container uses: the anonymous ones, or all.
pub(crate) fn volumes(context: &mut Context, all: bool) -> Result<(), CliError> {
    let store = context.engine()?.store();
    let mut names = Vec::new();
    for volume in store.volumes()? {
        if (all || volume.anonymous) && store.volume_users(&volume.name)?.is_empty() {
            names.push(volume.name);
        }
    }
    removed(context, "Deleted Volumes:", names, |context, name| Ok(context.engine()?.store().remove_volume(name)?))
}

/// Removes the images that no container was made from: those without a name, or all.
pub(crate) fn images(context: &mut Context, all: bool) -> Result<(), CliError> {
    let running = running(context)?;
    let images = context.engine()?.store().images()?;
    for image in images.iter().filter(|image| !image.read_only && image.containers == 0 && (all || image.is_dangling()))
    {
        let store = context.engine()?.store();
        let removed = store.remove_image(image.id.as_str(), true, &|id| running.contains(id))?;
        print_removed(context, &removed)?;
    }
    Ok(())
}

/// Removes what is chosen of the build cache.
pub(crate) fn build_cache(
    context: &mut Context,
    prune: &CachePrune,
    is_wanted: &dyn Fn(&CacheItem) -> bool,
) -> Result<(), CliError> {
    for name in builder::prune_cache(context.engine()?.store(), prune, is_wanted)? {
        context.print(format_args!("Deleted: {name}"))?;
    }
    Ok(())
}

/// Removes all of `names`, as far as it goes, under a heading.
fn removed(
    context: &mut Context,
    heading: &str,
    names: Vec<String>,
    remove: impl Fn(&mut Context, &str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    context.print(heading)?;
    let code = context.for_each(&names, |context, name| remove(context, name).map(|()| Some(name.to_owned())))?;
    context.print("")?;
    if code == ExitCode::SUCCESS { Ok(()) } else { Err(CliError::reported(1)) }
}
