//! `-v`, `--mount`, `--tmpfs` and the image's volumes, worked out when a container is made: sources are looked at or made,
//! volumes created and, where empty, filled from the image.

use crate::config::{ContainerConfig, MountPoint};
use crate::{Engine, EngineError, MountKind, MountSpec, Result};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use store::Image;

impl Engine {
    /// Fills in the config's mounts. Returns the names of the volumes used.
    pub(crate) fn prepare_mounts(&self, config: &mut ContainerConfig, image: &Image) -> Result<Vec<String>> {
        let mut points: Vec<MountPoint> = Vec::new();
        for other in &config.spec.volumes_from {
            points.extend(self.mounts_of(other)?);
        }
        for wanted in &config.spec.mounts {
            let target = clean_target(&wanted.target)?;
            if config.spec.mounts.iter().filter(|m| clean_target(&m.target).is_ok_and(|t| t == target)).count() > 1 {
                return Err(EngineError::Invalid(format!("Duplicate mount point: {target}")));
            }
            points.retain(|point| point.target != target);
            points.push(self.mount_point(wanted, target)?);
        }
        for path in &config.image_volumes {
            let target = clean_target(path)?;
            if !points.iter().any(|point| point.target == target) {
                let wanted = MountSpec { kind: MountKind::Volume, target: target.clone(), ..MountSpec::default() };
                points.push(self.mount_point(&wanted, target)?);
            }
        }
        let no_copy = |point: &MountPoint| {
            config.spec.mounts.iter().any(|m| m.no_copy && clean_target(&m.target).is_ok_and(|t| t == point.target))
        };
        let to_fill: Vec<&MountPoint> =
            points.iter().filter(|point| point.kind == MountKind::Volume && !no_copy(point)).collect();
        self.fill_volumes(&to_fill, image)?;
        let volumes = points.iter().filter_map(|point| point.name.clone()).collect();
        config.mounts = points;
        Ok(volumes)
    }

    /// `--volumes-from CONTAINER[:ro|rw]`.
    fn mounts_of(&self, text: &str) -> Result<Vec<MountPoint>> {
        let (name, read_only) = match text.rsplit_once(':') {
            Some((name, "ro")) => (name, true),
            Some((name, "rw")) => (name, false),
            _ => (text, false),
        };
        let row = self.store().container(name)?;
        let mut mounts = ContainerConfig::load(&self.store().container_dir(&row.id))?.mounts;
        mounts.retain(|mount| mount.kind != MountKind::Tmpfs);
        mounts.iter_mut().for_each(|mount| mount.read_only |= read_only);
        Ok(mounts)
    }

    fn mount_point(&self, wanted: &MountSpec, target: String) -> Result<MountPoint> {
        let mut point = MountPoint {
            kind: wanted.kind,
            target,
            read_only: wanted.read_only,
            propagation: wanted.propagation.clone(),
            recursive: wanted.recursive.unwrap_or(true),
            ..MountPoint::default()
        };
        match wanted.kind {
            MountKind::Bind => point.source = bind_source(wanted)?,
            MountKind::Volume => {
                let source = wanted.source.as_deref().filter(|name| !name.is_empty());
                let volume = self.store().create_volume(source, &BTreeMap::new(), &volume_options(wanted))?;
                point.source = beneath(&self.store().volume_data(&volume.name), wanted.subpath.as_deref())?;
                point.anonymous = volume.anonymous;
                point.name = Some(volume.name);
            }
            MountKind::Tmpfs => point.options = tmpfs_options(wanted),
            MountKind::Image => {
                let image = self.store().image(wanted.source.as_deref().unwrap_or_default())?;
                let layers = self.store().image_layers(&image)?;
                let [layer] = &layers[..] else {
                    return Err(EngineError::Invalid(
                        "--mount type=image: only images of a single layer can be mounted".to_owned(),
                    ));
                };
                point.source = beneath(layer, wanted.subpath.as_deref())?;
                point.read_only = true;
            }
        }
        Ok(point)
    }

    /// Copies what the image has at a volume's mount point into the volume, where that is empty.
    fn fill_volumes(&self, points: &[&MountPoint], image: &Image) -> Result<()> {
        if points.is_empty() {
            return Ok(());
        }
        let Some(root) = self.image_root(image)? else { return Ok(()) };
        for point in points {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let folder = linux::resolve::open(root.as_fd(), Path::new(&point.target), flags);
            if let (Ok(folder), Some(name)) = (folder, &point.name) {
                self.store().fill_volume(name, folder.as_fd())?;
            }
        }
        Ok(())
    }

    /// A read-only view of an image's root; None for an image without layers.
    fn image_root(&self, image: &Image) -> Result<Option<OwnedFd>> {
        let layers = self.store().image_layers(image)?;
        let open = |path: &PathBuf| linux::resolve::open_root(path);
        let folders = layers.iter().map(open).collect::<Result<Vec<OwnedFd>, _>>()?;
        Ok(linux::mount::view(folders)?)
    }

    /// Checks again, when the container starts, what could have gone since it was made.
    pub(crate) fn check_mounts(config: &ContainerConfig) -> Result<()> {
        for mount in config.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
            if !mount.source.exists() {
                return Err(missing_source(&mount.source));
            }
        }
        Ok(())
    }
}

/// The target without `.`, `..` and doubled slashes; `/` itself can't be a mount's.
fn clean_target(text: &str) -> Result<String> {
    let invalid = |reason: &str| Err(EngineError::Invalid(format!("invalid mount path: '{text}' {reason}")));
    if !text.starts_with('/') {
        return invalid("mount path must be absolute");
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return invalid("destination can't be '/'");
    }
    Ok(clean.to_string_lossy().into_owned())
}

fn missing_source(path: &Path) -> EngineError {
    EngineError::Invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        path.display()
    ))
}

fn bind_source(wanted: &MountSpec) -> Result<PathBuf> {
    let path = PathBuf::from(wanted.source.as_deref().unwrap_or_default());
    if !path.is_absolute() {
        return Err(EngineError::Invalid(format!("invalid mount source {:?}: it must be absolute", path.display())));
    }
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && wanted.create_source => {
            std::fs::create_dir_all(&path).map_err(|e| EngineError::io("make", &path, e))?;
            Ok(path)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing_source(&path)),
        Err(e) => Err(EngineError::io("look at", &path, e)),
    }
}

/// A folder of a volume or image, which may not lead out of it.
fn beneath(folder: &Path, subpath: Option<&str>) -> Result<PathBuf> {
    let Some(subpath) = subpath.filter(|text| !text.is_empty()) else { return Ok(folder.to_owned()) };
    let inside = Path::new(subpath).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let found = folder.join(subpath);
    let resolved = std::fs::canonicalize(&found).map_err(|e| EngineError::io("open", &found, e))?;
    let base = std::fs::canonicalize(folder).map_err(|e| EngineError::io("open", folder, e))?;
    if !inside || !resolved.starts_with(&base) {
        return Err(EngineError::Invalid(format!("invalid subpath {subpath:?}: it leads out of the volume")));
    }
    Ok(resolved)
}

fn volume_options(wanted: &MountSpec) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    wanted.options.iter().map(pair).collect()
}

fn tmpfs_options(wanted: &MountSpec) -> Vec<String> {
    let mut options = wanted.options.clone();
    options.extend(wanted.tmpfs_size_bytes.map(|size| format!("size={size}")));
    options.extend(wanted.tmpfs_mode.map(|mode| format!("mode={mode:o}")));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_and_clean() {
        let clean = |text| clean_target(text).unwrap_or_else(|e| e.to_string());
        assert_eq!(clean("/a//b/../c/"), "/a/c");
        assert!(clean("a").contains("must be absolute"));
        assert!(clean("/..").contains("can't be '/'"));
    }
}
