//! `-v`, `--mount` and `--tmpfs`.

use crate::options::units::parse_size;
use engine::{MountKind, MountSpec};
use std::path::{Component, Path, PathBuf};

/// Where relative and `~` sources start from.
pub(crate) struct Origin {
    /// The caller's directory.
    pub(crate) directory: PathBuf,
    /// The caller's home.
    pub(crate) home: PathBuf,
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`.
pub(crate) fn parse_volume(text: &str, origin: &Origin) -> Result<MountSpec, String> {
    let wrong = |why: &str| format!("invalid volume specification: '{text}': {why}");
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match fields[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong("expected [SOURCE:]TARGET[:OPTIONS]")),
    };
    if target.is_empty() || source == Some("") {
        return Err(wrong("empty section between colons"));
    }
    let mut mount = MountSpec { target: check_target(target).map_err(|e| wrong(&e))?, ..MountSpec::default() };
    if let Some(source) = source {
        if source.starts_with(['.', '/', '~']) {
            mount.kind = MountKind::Bind;
            mount.create_source = true;
            mount.source = Some(host_path(source, origin));
        } else {
            mount.source = Some(check_volume_name(source)?);
        }
    }
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => mount.no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                mount.propagation = Some(option.to_owned());
            }
            // Labels of SELinux, which we don't set, and consistency hints of another platform.
            "z" | "Z" | "consistent" | "cached" | "delegated" | "default" | "copy" => {}
            _ => return Err(wrong(&format!("unknown mode: {option}"))),
        }
    }
    Ok(mount)
}

/// `--mount type=…,source=…,target=…,…`: one CSV record.
pub(crate) fn parse_mount(text: &str, origin: &Origin) -> Result<MountSpec, String> {
    let wrong = |why: String| format!("invalid argument {text:?} for \"--mount\": {why}");
    let mut mount = MountSpec::default();
    let mut kind_specific: Vec<(String, MountKind)> = Vec::new();
    for field in csv_fields(text).map_err(|e| wrong(e.to_owned()))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let needs = || value.ok_or_else(|| wrong(format!("invalid field '{field}' must be a key=value pair")));
        let flag = || match value {
            None => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| wrong(format!("invalid value for {key}: {text}"))),
        };
        let mut only = |kind| kind_specific.push((key.clone(), kind));
        match key.as_str() {
            "type" => mount.kind = parse_kind(needs()?).map_err(wrong)?,
            "src" | "source" => mount.source = Some(needs()?.to_owned()),
            "dst" | "target" | "destination" => mount.target = check_target(needs()?).map_err(wrong)?,
            "ro" | "readonly" => mount.read_only = flag()?,
            "consistency" => drop(needs()?),
            "bind-propagation" => {
                only(MountKind::Bind);
                mount.propagation = Some(check_propagation(needs()?).map_err(wrong)?);
            }
            "bind-recursive" => {
                only(MountKind::Bind);
                mount.recursive = Some(match needs()? {
                    "enabled" | "writable" => true,
                    "disabled" => false,
                    other => return Err(wrong(format!("invalid value for bind-recursive: {other}"))),
                });
            }
            "bind-nonrecursive" => {
                only(MountKind::Bind);
                mount.recursive = Some(!flag()?);
            }
            "bind-create-src" => {
                only(MountKind::Bind);
                mount.create_source = flag()?;
            }
            "volume-nocopy" => {
                only(MountKind::Volume);
                mount.no_copy = flag()?;
            }
            "volume-opt" => {
                only(MountKind::Volume);
                mount.options.push(needs()?.to_owned());
            }
            "volume-subpath" | "image-subpath" => {
                only(if key.starts_with('v') { MountKind::Volume } else { MountKind::Image });
                mount.subpath = Some(needs()?.to_owned());
            }
            "tmpfs-size" => {
                only(MountKind::Tmpfs);
                mount.tmpfs_size_bytes = Some(parse_size(needs()?).map_err(wrong)?);
            }
            "tmpfs-mode" => {
                only(MountKind::Tmpfs);
                mount.tmpfs_mode = Some(parse_mode(needs()?).map_err(wrong)?);
            }
            _ => {
                needs()?;
                return Err(wrong(format!("unexpected key '{key}' in '{field}'")));
            }
        }
    }
    if let Some((key, _)) = kind_specific.iter().find(|(_, kind)| *kind != mount.kind) {
        return Err(wrong(format!("cannot mix '{key}' with mount type '{}'", kind_name(mount.kind))));
    }
    if mount.target.is_empty() {
        return Err(wrong("target is required".to_owned()));
    }
    settle_source(&mut mount, origin).map_err(wrong)?;
    Ok(mount)
}

/// What a source means depends on the type, which may stand behind it.
fn settle_source(mount: &mut MountSpec, origin: &Origin) -> Result<(), String> {
    match (mount.kind, mount.source.take().filter(|s| !s.is_empty())) {
        (MountKind::Bind, Some(source)) => {
            let path = host_path(&source, origin);
            if !mount.create_source && std::fs::symlink_metadata(&path).is_err() {
                return Err(format!("bind source path does not exist: {path}"));
            }
            mount.source = Some(path);
        }
        (MountKind::Volume, Some(source)) => mount.source = Some(check_volume_name(&source)?),
        (MountKind::Image, Some(source)) => mount.source = Some(source),
        (MountKind::Volume | MountKind::Tmpfs, None) => {}
        (MountKind::Bind | MountKind::Image, None) => return Err("source is required".to_owned()),
        (MountKind::Tmpfs, Some(_)) => return Err("a tmpfs has no source".to_owned()),
    }
    Ok(())
}

/// `--tmpfs TARGET[:OPTIONS]`.
pub(crate) fn parse_tmpfs(text: &str) -> Result<MountSpec, String> {
    let wrong = |why: String| format!("invalid argument {text:?} for \"--tmpfs\": {why}");
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount =
        MountSpec { kind: MountKind::Tmpfs, target: check_target(target).map_err(wrong)?, ..MountSpec::default() };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) if !size.ends_with('%') => {
                mount.tmpfs_size_bytes = Some(parse_size(size).map_err(wrong)?);
            }
            Some(("mode", mode)) => mount.tmpfs_mode = Some(parse_mode(mode).map_err(wrong)?),
            _ if option == "ro" => mount.read_only = true,
            _ if option == "rw" => mount.read_only = false,
            _ => mount.options.push(option.to_owned()),
        }
    }
    Ok(mount)
}

fn parse_kind(text: &str) -> Result<MountKind, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        "image" => MountKind::Image,
        _ => return Err(format!("mount type unknown: {text:?}: expected bind, volume, tmpfs or image")),
    })
}

fn kind_name(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("invalid mode {text:?}: expected an octal number such as 1777"))
}

fn check_propagation(text: &str) -> Result<String, String> {
    match text {
        "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => Ok(text.to_owned()),
        _ => Err(format!("invalid propagation {text:?}: expected [r]shared, [r]slave or [r]private")),
    }
}

/// Absolute, without `.` and `..`, and not the root itself.
fn check_target(text: &str) -> Result<String, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("invalid mount path: '{text}' mount path must be absolute"));
    }
    let clean = lexically_clean(path);
    if clean == Path::new("/") {
        return Err("destination can't be '/'".to_owned());
    }
    Ok(clean.to_string_lossy().into_owned())
}

fn check_volume_name(name: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() > 1 && name.len() <= 255 && name.bytes().all(inner) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed: \
         use an absolute path to mount a folder of the host"
    ))
}

/// A source on the host as an absolute path.
fn host_path(text: &str, origin: &Origin) -> String {
    let path = match text.strip_prefix('~') {
        Some("") => origin.home.clone(),
        Some(rest) if rest.starts_with('/') => origin.home.join(rest.trim_start_matches('/')),
        _ => origin.directory.join(text),
    };
    lexically_clean(&path).to_string_lossy().into_owned()
}

fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// The fields of one CSV record: `a,"b,c","say ""x"""`.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    None => return Err("a quote is not closed"),
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => field.push(c),
                }
            };
            fields.push(field);
            match quoted[end..].strip_prefix(',') {
                Some(next) => rest = next,
                None if quoted[end..].is_empty() => return Ok(fields),
                None => return Err("text after a closing quote"),
            }
        } else {
            match rest.split_once(',') {
                Some((field, next)) => {
                    fields.push(field.to_owned());
                    rest = next;
                }
                None => {
                    fields.push(rest.to_owned());
                    return Ok(fields);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { directory: "/work".into(), home: "/home/u".into() }
    }

    /// kind source target, and what is not the default.
    fn show(mount: Result<MountSpec, String>) -> String {
        let m = match mount {
            Ok(mount) => mount,
            Err(error) => return error,
        };
        let mut text = format!("{} {} {}", kind_name(m.kind), m.source.as_deref().unwrap_or("-"), m.target);
        let mut add = |on: bool, word: String| {
            if on {
                text.push(' ');
                text.push_str(&word);
            }
        };
        add(m.read_only, "ro".into());
        add(m.create_source, "create".into());
        add(m.no_copy, "nocopy".into());
        add(m.propagation.is_some(), m.propagation.clone().unwrap_or_default());
        add(m.recursive.is_some(), format!("recursive={:?}", m.recursive.unwrap_or_default()));
        add(m.subpath.is_some(), format!("subpath={}", m.subpath.clone().unwrap_or_default()));
        add(m.tmpfs_size_bytes.is_some(), format!("size={}", m.tmpfs_size_bytes.unwrap_or_default()));
        add(m.tmpfs_mode.is_some(), format!("mode={:o}", m.tmpfs_mode.unwrap_or_default()));
        add(!m.options.is_empty(), m.options.join("|"));
        text
    }

    #[test]
    fn volumes() {
        for (text, expected) in [
            ("/data", "volume - /data"),
            ("data:/data", "volume data /data"),
            ("/a/b:/c", "bind /a/b /c create"),
            ("./x:/c:ro", "bind /work/x /c ro create"),
            ("../x:/c", "bind /x /c create"),
            (".:/c", "bind /work /c create"),
            ("~/x:/c", "bind /home/u/x /c create"),
            ("~:/c", "bind /home/u /c create"),
            ("v1:/c:ro,nocopy", "volume v1 /c ro nocopy"),
            ("/a:/c/../d/:rshared,z", "bind /a /d create rshared"),
            ("/a:/c:cached", "bind /a /c create"),
        ] {
            assert_eq!(show(parse_volume(text, &origin())), expected, "{text}");
        }
        for (bad, words) in [
            ("", "empty section"),
            (":/x", "empty section"),
            ("a:", "empty section"),
            ("a:b", "must be absolute"),
            ("a:/", "destination can't be '/'"),
            ("a:/b:/c:ro", "expected [SOURCE:]TARGET"),
            ("ab:/b:rx", "unknown mode: rx"),
            ("a/b:/c", "invalid characters for a local volume name"),
        ] {
            let error = show(parse_volume(bad, &origin()));
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn mounts() {
        for (text, expected) in [
            ("target=/x", "volume - /x"),
            ("type=volume,src=v1,dst=/x,readonly", "volume v1 /x ro"),
            ("type=bind,source=/,target=/x,ro=true", "bind / /x ro"),
            ("dst=/x,src=/etc,type=bind,bind-propagation=rslave", "bind /etc /x rslave"),
            ("type=bind,src=/etc,dst=/x,bind-recursive=disabled", "bind /etc /x recursive=false"),
            ("type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700", "tmpfs - /x size=1048576 mode=700"),
            ("type=image,src=busybox,dst=/x,image-subpath=bin", "image busybox /x subpath=bin"),
            ("type=volume,\"dst=/a,b\",volume-nocopy=1", "volume - /a,b nocopy"),
            ("type=volume,dst=/x,volume-opt=a=b", "volume - /x a=b"),
        ] {
            assert_eq!(show(parse_mount(text, &origin())), expected, "{text}");
        }
        for (bad, words) in [
            ("", "must be a key=value pair"),
            ("type=bind,dst=/x", "source is required"),
            ("type=bind,src=/does/not/exist,dst=/x", "bind source path does not exist: /does/not/exist"),
            ("type=volume,src=v1", "target is required"),
            ("type=volume,dst=/x,tmpfs-size=1", "cannot mix 'tmpfs-size' with mount type 'volume'"),
            ("type=zfs,dst=/x", "mount type unknown"),
            ("dst=/x,colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("dst=/x,ro=perhaps", "invalid value for ro: perhaps"),
            ("type=tmpfs,dst=/x,tmpfs-mode=9", "invalid mode"),
            ("\"dst=/x", "a quote is not closed"),
        ] {
            let error = show(parse_mount(bad, &origin()));
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn tmpfs() {
        assert_eq!(show(parse_tmpfs("/x")), "tmpfs - /x");
        assert_eq!(
            show(parse_tmpfs("/x:size=64k,mode=755,noexec,uid=1")),
            "tmpfs - /x size=65536 mode=755 noexec|uid=1"
        );
        assert!(show(parse_tmpfs("x")).contains("must be absolute"));
    }
}
