//! `build --output`: what a build's result becomes.

use super::mount::csv_fields;
use oci::Reference;
use std::path::PathBuf;

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BuildOutput {
    /// Its files in a folder.
    Local(PathBuf),
    /// Its files as a tar; None: on standard output.
    Tar(Option<PathBuf>),
    /// An archive; None: on standard output.
    Archive {
        /// docker's form, else OCI's.
        is_docker: bool,
        dest: Option<PathBuf>,
        names: Vec<Reference>,
    },
    /// An OCI layout as a folder.
    Layout { dest: PathBuf, names: Vec<Reference> },
    /// An image of the store, perhaps pushed.
    Image { names: Vec<Reference>, push: bool },
    /// Nothing: only the cache gets it.
    CacheOnly,
}

impl BuildOutput {
    /// Parses `type=local|tar|oci|docker|image|registry|cacheonly[,dest=…][,name=…][,push=true]`; a path alone is a folder's,
    /// `-` a tar on standard output.
    pub(crate) fn parse(text: &str) -> Result<BuildOutput, String> {
        let wrong = |why: String| format!("invalid --output {text:?}: {why}");
        if text == "-" {
            return Ok(BuildOutput::Tar(None));
        }
        let fields = csv_fields(text).map_err(|why| wrong(why.to_owned()))?;
        if let [path] = fields.as_slice()
            && !path.contains('=')
        {
            return Ok(BuildOutput::Local(PathBuf::from(path)));
        }
        let (mut kind, mut dest, mut names, mut push, mut is_tar) = (String::new(), None, Vec::new(), false, true);
        let truth = |value: &str| match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(format!("{value:?} is neither true nor false"))),
        };
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("{field:?} is not key=value")))?;
            match key {
                "type" => kind = value.to_owned(),
                "dest" => dest = Some(value.to_owned()),
                "name" => {
                    for name in value.split(',').filter(|name| !name.is_empty()) {
                        names.push(name.parse::<Reference>().map_err(|e| wrong(e.to_string()))?);
                    }
                }
                "push" => push = truth(value)?,
                "tar" => is_tar = truth(value)?,
                // How layers are packed, and that they are unpacked, is settled here.
                "compression" | "compression-level" | "force-compression" | "oci-mediatypes" | "unpack" | "store"
                | "rewrite-timestamp" | "platform-split" => {}
                _ => return Err(wrong(format!("unknown key {key:?}: expected type, dest, name, push or tar"))),
            }
        }
        let file = || dest.clone().filter(|dest| dest != "-").map(PathBuf::from);
        let folder = || dest.clone().map(PathBuf::from).ok_or_else(|| wrong("no dest".to_owned()));
        Ok(match kind.as_str() {
            "local" => BuildOutput::Local(folder()?),
            "tar" => BuildOutput::Tar(file()),
            "oci" if !is_tar => BuildOutput::Layout { dest: folder()?, names },
            "oci" => BuildOutput::Archive { is_docker: false, dest: file(), names },
            // Without a place docker's form means docker's own store; here, ours.
            "docker" if dest.is_none() => BuildOutput::Image { names, push: false },
            "docker" => BuildOutput::Archive { is_docker: true, dest: file(), names },
            "image" => BuildOutput::Image { names, push },
            "registry" => BuildOutput::Image { names, push: true },
            "cacheonly" => BuildOutput::CacheOnly,
            "" => return Err(wrong("no type".to_owned())),
            other => {
                let known = "local, tar, oci, docker, image, registry or cacheonly";
                return Err(wrong(format!("unknown type {other:?}: expected {known}")));
            }
        })
    }

    /// The result is written to standard output, which must then hold nothing else.
    pub(crate) fn takes_stdout(&self) -> bool {
        matches!(self, BuildOutput::Tar(None) | BuildOutput::Archive { dest: None, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_parsed() {
        let archive = |is_docker, dest: Option<&str>| {
            Ok(BuildOutput::Archive { is_docker, dest: dest.map(PathBuf::from), names: Vec::new() })
        };
        for (text, expected) in [
            ("out", Ok(BuildOutput::Local("out".into()))),
            ("-", Ok(BuildOutput::Tar(None))),
            ("type=local,dest=/x", Ok(BuildOutput::Local("/x".into()))),
            ("type=tar,dest=a.tar", Ok(BuildOutput::Tar(Some("a.tar".into())))),
            ("type=tar", Ok(BuildOutput::Tar(None))),
            ("type=oci,dest=-", archive(false, None)),
            ("type=docker,dest=a", archive(true, Some("a"))),
            ("type=oci,tar=false,dest=d", Ok(BuildOutput::Layout { dest: "d".into(), names: Vec::new() })),
            ("type=docker", Ok(BuildOutput::Image { names: Vec::new(), push: false })),
            ("type=image,push=true", Ok(BuildOutput::Image { names: Vec::new(), push: true })),
            ("type=registry", Ok(BuildOutput::Image { names: Vec::new(), push: true })),
        ] {
            assert_eq!(BuildOutput::parse(text), expected, "{text}");
        }
        let named = BuildOutput::parse("type=image,\"name=a,b:1\"");
        assert!(matches!(named, Ok(BuildOutput::Image { names, .. }) if names.len() == 2));
        for bad in ["type=zip", "type=local", "dest=x", "type=image,push=x", "type=tar,x", "type=tar,a=b"] {
            assert!(BuildOutput::parse(bad).is_err(), "{bad}");
        }
    }
}
