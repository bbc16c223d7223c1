//! `registries.conf`, version 2 of its format: where an image's name really leads (containers-registries.conf(5)).
//! Mirrors are tried in their order, then the registry itself; what is blocked is not asked at all.

use oci::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most drop-in files read from one directory.
const MAX_FILES: usize = 200;
/// The most registries a short name is looked for in.
const MAX_SEARCHED: usize = 20;

/// Where the rules are kept. All values come from the command line's owner.
#[derive(Clone, Debug, Default)]
pub struct RuleFiles {
    /// The main file: the first that exists is read.
    pub files: Vec<PathBuf>,
    /// Directories of `*.conf` files, read after it: what they say of a registry takes the place of what was said before.
    pub drop_ins: Vec<PathBuf>,
}

/// Why the rules cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct RulesError {
    path: PathBuf,
    why: String,
}

/// What is said of registries.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    /// By prefix.
    registries: BTreeMap<String, Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    /// Where it stands.
    file: PathBuf,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    kind: MirrorKind,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MirrorKind {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// Where a name leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `host[:port]/path`, the first to be tried first; the last is the registry itself.
    To(Vec<String>),
    /// Nowhere, says this file.
    Blocked(PathBuf),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<FileRegistry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1.
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileRegistry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<FileMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<MirrorKind>,
}

impl Rules {
    /// Reads the files; those that are not there say nothing.
    pub fn read(files: &RuleFiles) -> Result<Rules, RulesError> {
        let mut rules = Rules::default();
        let mut paths: Vec<PathBuf> = files.files.iter().find(|path| path.exists()).into_iter().cloned().collect();
        for dir in &files.drop_ins {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(MAX_FILES).collect();
            found.retain(|path| path.extension().is_some_and(|e| e == "conf"));
            found.sort();
            paths.extend(found);
        }
        for path in paths {
            let text = read_text(&path).map_err(|e| RulesError { path: path.clone(), why: e.to_string() })?;
            rules.add(&text, &path).map_err(|why| RulesError { path, why })?;
        }
        Ok(rules)
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|e| crate::error::one_line(&e.to_string(), 300))?;
        if file.registries.is_some() {
            return Err("it is in version 1 of the format, which is not read: see containers-registries.conf(5)".into());
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search.into_iter().take(MAX_SEARCHED).collect();
        }
        self.aliases.extend(file.aliases);
        for registry in file.registry {
            let (prefix, rule) = registry.rule(path)?;
            self.registries.insert(prefix, rule);
        }
        Ok(())
    }

    /// The names that a short one (`busybox`, `team/app:1`) stands for, the likeliest first; none where nothing was said of
    /// short names, or the name is whole.
    pub fn short_names(&self, text: &str) -> Vec<Reference> {
        let first = text.split('/').next().unwrap_or(text);
        let whole = text.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        if whole || self.search.is_empty() {
            return Vec::new();
        }
        let end = text.find([':', '@']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if let Some(full) = self.aliases.get(name) {
            return format!("{full}{rest}").parse().into_iter().collect();
        }
        self.search.iter().filter_map(|host| format!("{host}/{text}").parse().ok()).collect()
    }

    /// Hosts (`host[:port]`, or `*.domain`) that may have any certificate, or none.
    pub(crate) fn insecure_hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        for (prefix, rule) in &self.registries {
            if rule.insecure {
                hosts.push(host_of(if rule.location.is_empty() { prefix } else { &rule.location }));
            }
            hosts.extend(rule.mirrors.iter().filter(|m| m.insecure).map(|m| host_of(&m.location)));
        }
        hosts
    }

    /// Where to ask for an image (`reading`), or to put it.
    pub(crate) fn way(&self, reference: &Reference, reading: bool) -> Way {
        let name = reference.repository();
        let matching = self
            .registries
            .iter()
            .filter_map(|(prefix, rule)| Some((prefix, rest_of_image(reference, &name, prefix)?, rule)));
        let Some((_, rest, rule)) = matching.max_by_key(|(prefix, ..)| prefix.len()) else {
            return Way::To(vec![name]);
        };
        if rule.blocked {
            return Way::Blocked(rule.file.clone());
        }
        let by_digest = reference.digest().is_some();
        let serves = |mirror: &&Mirror| match mirror.kind {
            MirrorKind::All => true,
            MirrorKind::DigestOnly => by_digest,
            MirrorKind::TagOnly => !by_digest,
        };
        let mirrors = rule.mirrors.iter().filter(|_| reading).filter(serves).map(|m| format!("{}{rest}", m.location));
        let own = if rule.location.is_empty() { name.clone() } else { format!("{}{rest}", rule.location) };
        Way::To(mirrors.chain([own]).collect())
    }
}

/// What of an image's name follows a prefix, which may end with a tag or digest: then it is that image's alone.
fn rest_of_image<'a>(reference: &Reference, name: &'a str, prefix: &str) -> Option<&'a str> {
    let (repository, image) = split_image(prefix);
    match image {
        None => rest_of(name, prefix),
        Some(image) => {
            let digest = reference.digest().map(|digest| digest.as_str());
            let is_it = repository == name && (digest == Some(image) || reference.tag() == Some(image));
            is_it.then_some("")
        }
    }
}

/// A prefix, and the tag or digest at its end.
fn split_image(prefix: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = prefix.split_once('@') {
        return (repository, Some(digest));
    }
    let last = prefix.rfind('/').unwrap_or(prefix.len());
    match prefix.get(last..).and_then(|name| name.find(':')) {
        Some(at) => (&prefix[..last + at], Some(&prefix[last + at + 1..])),
        None => (prefix, None),
    }
}

/// What of a name follows a prefix (`host`, `host/path`, `*.domain`) that it has.
fn rest_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or(name);
        let host = host.split(':').next().unwrap_or(host);
        return (host.ends_with(domain) && host.len() > domain.len()).then(|| name.get(host.len()..).unwrap_or(""));
    }
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn host_of(location: &str) -> String {
    location.split('/').next().unwrap_or(location).to_ascii_lowercase()
}

impl FileRegistry {
    /// Its prefix, and what is said of it.
    fn rule(self, file: &Path) -> Result<(String, Rule), String> {
        let is_wild = self.prefix.starts_with("*.");
        let prefix = if self.prefix.is_empty() { self.location.clone() } else { self.prefix };
        let prefix = prefix.trim_end_matches('/').to_owned();
        if prefix.is_empty() {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        }
        let is_place = |location: &str| {
            let name: Result<Reference, _> = format!("{location}/x").parse();
            name.is_ok_and(|name| location.split('/').next() == Some(name.domain()))
        };
        let places =
            self.mirror.iter().map(|m| &m.location).chain((!self.location.is_empty()).then_some(&self.location));
        for place in places {
            if !is_place(place) {
                return Err(format!("location {place:?} is no registry: HOST[:PORT][/PATH] is expected"));
            }
        }
        let is_image = split_image(&prefix).1.is_some() && prefix.parse::<Reference>().is_ok();
        if !is_wild && !is_image && !is_place(&prefix) {
            let expected = "HOST[:PORT][/PATH[:TAG|@DIGEST]] or *.DOMAIN";
            return Err(format!("prefix {prefix:?} is no registry: {expected} is expected"));
        }
        let by_digest_only = self.mirror_by_digest_only;
        let kind = |kind: Option<MirrorKind>| match (by_digest_only, kind) {
            (true, _) => MirrorKind::DigestOnly,
            (_, kind) => kind.unwrap_or_default(),
        };
        let mirror =
            |m: FileMirror| Mirror { kind: kind(m.pull_from_mirror), location: m.location, insecure: m.insecure };
        let rule = Rule {
            location: self.location,
            insecure: self.insecure,
            blocked: self.blocked,
            mirrors: self.mirror.into_iter().map(mirror).collect(),
            file: file.to_owned(),
        };
        Ok((prefix, rule))
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        let mut rules = Rules::default();
        rules.add(text, Path::new("/x.conf")).unwrap();
        rules
    }

    fn ways(rules: &Rules, name: &str, reading: bool) -> String {
        match rules.way(&name.parse().unwrap(), reading) {
            Way::To(list) => list.join(" "),
            Way::Blocked(file) => format!("blocked by {}", file.display()),
        }
    }

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_longest_prefix_decides() {
        let rules = rules(
            r#"
            [[registry]]
            prefix = "docker.io"
            [[registry.mirror]]
            location = "mirror.example:5000/hub"
            [[registry.mirror]]
            location = "by-digest.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "by-tag.example"
            pull-from-mirror = "tag-only"

            [[registry]]
            prefix = "docker.io/library/secret"
            blocked = true

            [[registry]]
            prefix = "old.example/team"
            location = "new.example/old/team"

            [[registry]]
            prefix = "*.corp.example"
            insecure = true
            "#,
        );
        let hub = "docker.io/library/busybox";
        assert_eq!(
            ways(&rules, "busybox", true),
            format!("mirror.example:5000/hub/library/busybox by-tag.example/library/busybox {hub}")
        );
        assert_eq!(
            ways(&rules, &format!("busybox@{DIGEST}"), true),
            format!("mirror.example:5000/hub/library/busybox by-digest.example/library/busybox {hub}")
        );
        assert_eq!(ways(&rules, "busybox", false), hub, "nothing is pushed to a mirror");
        assert_eq!(ways(&rules, "secret", true), "blocked by /x.conf");
        assert_eq!(ways(&rules, "secrets", false), "docker.io/library/secrets", "a prefix ends with a part");
        assert_eq!(ways(&rules, "old.example/team/app:1", false), "new.example/old/team/app");
        assert_eq!(ways(&rules, "old.example/teams/app", true), "old.example/teams/app");
        assert_eq!(ways(&rules, "a.b.corp.example:5000/x", true), "a.b.corp.example:5000/x");
        assert_eq!(rules.insecure_hosts(), ["*.corp.example"]);
    }

    #[test]
    fn a_prefix_may_be_one_image() {
        let digest = format!("r.io/team/app@{DIGEST}");
        let rules = rules(&format!(
            r#"
            [[registry]]
            prefix = "r.io/team"
            location = "general.io/team"

            [[registry]]
            prefix = "r.io/team/app:1"
            location = "pinned.io:5000/app"

            [[registry]]
            prefix = "{digest}"
            blocked = true

            [[registry]]
            prefix = "localhost:5000/x:old"
            blocked = true
            "#
        ));
        for (name, way) in [
            ("r.io/team/app:1", "pinned.io:5000/app"),
            ("r.io/team/app:2", "general.io/team/app"),
            ("r.io/team/app:11", "general.io/team/app"),
            ("r.io/team/app/part:1", "general.io/team/app/part"),
            (&digest, "blocked by /x.conf"),
            (&format!("r.io/team/other@{DIGEST}"), "general.io/team/other"),
            ("localhost:5000/x:old", "blocked by /x.conf"),
            ("localhost:5000/x:new", "localhost:5000/x"),
        ] {
            assert_eq!(ways(&rules, name, true), way, "{name}");
        }
    }

    #[test]
    fn wildcards_are_of_whole_names_and_give_way_to_what_is_longer() {
        let rules = rules(
            r#"
            [[registry]]
            prefix = "*.example.com"
            location = "all.io"

            [[registry]]
            prefix = "*.deep.example.com"
            location = "deep.io"

            [[registry]]
            prefix = "a.deep.example.com/only"
            location = "only.io"
            "#,
        );
        for (name, way) in [
            ("x.example.com/y", "all.io/y"),
            ("x.example.com:8443/y", "all.io:8443/y"),
            ("a.deep.example.com/y", "deep.io/y"),
            ("a.deep.example.com/only/z", "only.io/z"),
            ("deep.example.com/y", "all.io/y"),
            ("badexample.com/y", "badexample.com/y"),
            ("r.io/x.example.com/y", "r.io/x.example.com/y"),
        ] {
            assert_eq!(ways(&rules, name, true), way, "{name}");
        }
    }

    #[test]
    fn a_wildcard_may_lead_elsewhere() {
        let rules = rules("[[registry]]\nprefix = \"*.example.com\"\nlocation = \"proxy.local:5000/all\"\n");
        assert_eq!(ways(&rules, "a.example.com/b/c", true), "proxy.local:5000/all/b/c");
        assert_eq!(ways(&rules, "example.com/b", true), "example.com/b");
    }

    #[test]
    fn mirrors_by_digest_only() {
        let text = "[[registry]]\nlocation = \"r.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.io\"\n";
        let rules = rules(text);
        assert_eq!(ways(&rules, "r.io/x:1", true), "r.io/x");
        assert_eq!(ways(&rules, &format!("r.io/x@{DIGEST}"), true), "m.io/x r.io/x");
    }

    #[test]
    fn short_names_are_docker_hubs_unless_said_otherwise() {
        let text = "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\n[aliases]\nfedora = \"registry.fedoraproject.org/fedora\"\n";
        let rules = rules(text);
        let names = |text: &str| rules.short_names(text).iter().map(Reference::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names("busybox:1"), "quay.io/busybox:1 docker.io/library/busybox:1");
        assert_eq!(names("team/app"), "quay.io/team/app:latest docker.io/team/app:latest");
        assert_eq!(names("fedora:40"), "registry.fedoraproject.org/fedora:40");
        for whole in ["docker.io/busybox", "localhost/x", "localhost:5000/x"] {
            assert_eq!(names(whole), "");
        }
        assert!(Rules::default().short_names("busybox").is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.conf");
        for (text, expected) in [
            ("[registries.search]\nregistries = [\"x\"]\n", "version 1"),
            ("[[registry]]\nprefix = 5\n", "invalid type"),
            ("[[registry]]\n", "neither prefix nor location"),
            ("[[registry]]\nlocation = \"no-host\"\n", "is no registry"),
            ("[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"http://m.io\"\n", "is no registry"),
            (
                "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io\"\npull-from-mirror = \"x\"\n",
                "x",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let files = RuleFiles { files: vec![file.clone()], ..RuleFiles::default() };
            let error = Rules::read(&files).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("registries.conf"), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn drop_ins_take_the_place_of_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let drop_in = dir.path().join("registries.conf.d");
        std::fs::create_dir(&drop_in).unwrap();
        let main = dir.path().join("registries.conf");
        std::fs::write(&main, "[[registry]]\nlocation = \"r.io\"\nblocked = true\n").unwrap();
        std::fs::write(drop_in.join("10.conf"), "[[registry]]\nprefix = \"r.io\"\nlocation = \"s.io\"\n").unwrap();
        std::fs::write(drop_in.join("notes.txt"), "nothing\n").unwrap();
        let missing = dir.path().join("missing.conf");
        let files = RuleFiles { files: vec![missing, main], drop_ins: vec![drop_in, dir.path().join("none")] };
        assert_eq!(ways(&Rules::read(&files).unwrap(), "r.io/x", true), "s.io/x");
    }
}
