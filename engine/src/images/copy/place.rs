//! Where an image is: skopeo's names for it.

use oci::Reference;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an image is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `oci:FOLDER[:NAME]`: an OCI image layout.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// Which image in it.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`: the same as a tar.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// Which image in it.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// Which image in it.
        name: Option<String>,
    },
    /// `ctr:NAME`, or a name alone: the store.
    Store(String),
}

/// Why a text is no place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The name of an image.
    #[error(transparent)]
    Reference(#[from] oci::ReferenceError),
    /// Nothing after the colon.
    #[error("invalid image name {0:?}: a path is missing")]
    NoPath(String),
    /// skopeo's, but not ours.
    #[error(
        "{0:?} is not known here: docker://NAME, oci:FOLDER[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME] and ctr:NAME are"
    )]
    Transport(String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Place, PlaceError> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Place::Registry(name.parse()?));
        }
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        let file = || -> Result<(PathBuf, Option<String>), PlaceError> {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() {
                return Err(PlaceError::NoPath(text.to_owned()));
            }
            Ok((PathBuf::from(path), name.filter(|name| !name.is_empty()).map(str::to_owned)))
        };
        match transport {
            "oci" => file().map(|(folder, name)| Place::Layout { folder, name }),
            "oci-archive" => file().map(|(file, name)| Place::OciArchive { file, name }),
            "docker-archive" => file().map(|(file, name)| Place::DockerArchive { file, name }),
            "ctr" => Ok(Place::Store(rest.to_owned())),
            "dir" | "docker-daemon" | "containers-storage" | "sif" | "ostree" | "tarball" | "docker" => {
                Err(PlaceError::Transport(format!("{transport}:")))
            }
            _ => Ok(Place::Store(text.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Place::Registry(reference) => return write!(f, "docker://{}", reference.familiar()),
            Place::Store(name) => return f.write_str(name),
            Place::Layout { folder, name } => ("oci", folder, name),
            Place::OciArchive { file, name } => ("oci-archive", file, name),
            Place::DockerArchive { file, name } => ("docker-archive", file, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_go_by_skopeos_names() {
        for text in [
            "docker://busybox:1",
            "docker://localhost:5000/a/b:1",
            "oci:/tmp/layout",
            "oci:layout:team/app:1",
            "oci-archive:a.tar",
            "docker-archive:/x/a.tar:busybox:1",
            "busybox:latest",
            "localhost:5000/app:1",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("ctr:busybox:1".parse::<Place>().unwrap(), Place::Store("busybox:1".to_owned()));
        let named = Place::DockerArchive { file: "/x/a.tar".into(), name: Some("busybox:1".to_owned()) };
        assert_eq!("docker-archive:/x/a.tar:busybox:1".parse::<Place>().unwrap(), named);
        for bad in ["oci:", "docker-archive::x", "docker://", "docker://A/B", "dir:/x", "docker-daemon:x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
