//! Git repositories, as contexts and as what ADD fetches; by the program `git`.

use super::{FetchedContext, new_folder, unfetched};
use crate::error::BuildError;
use engine::Engine;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A repository as `build` and ADD are given it: `https://host/x.git#branch:folder`, or with a query
/// (`?ref=…&subdir=…&checksum=…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitContext {
    url: String,
    /// A branch, a tag or a commit.
    reference: String,
    folder: String,
    /// A commit, or how it begins, that it must turn out to be.
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    no_submodules: bool,
}

/// A commit's date, in seconds since 1970.
type CommitTime = i64;

/// A name a repository has for a commit.
struct Remote {
    /// As it is fetched: `refs/tags/v1`.
    name: String,
    commit: String,
}

/// Whether ADD takes the text for a repository.
pub(crate) fn is_url_of_a_repository(text: &str) -> bool {
    GitContext::parse(text).is_some() && !text.starts_with("github.com/")
}

impl GitContext {
    /// None if the text names no repository: git's own schemes, `git@host:path`, a path ending in `.git` over http, and
    /// `github.com/…` do.
    pub fn parse(text: &str) -> Option<GitContext> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (url, query) = place.split_once('?').unwrap_or((place, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let over_http = url.starts_with("http://") || url.starts_with("https://");
        let is_git = ["git://", "ssh://", "git@"].iter().any(|start| url.starts_with(start));
        let url = match () {
            () if is_git || (over_http && url.trim_end_matches('/').ends_with(".git")) => url.to_owned(),
            () if url.starts_with("github.com/") => format!("https://{url}"),
            () => return None,
        };
        let mut context =
            GitContext { url, reference: reference.to_owned(), folder: folder.to_owned(), ..GitContext::default() };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "ref" => context.reference = value.to_owned(),
                "branch" => context.reference = format!("refs/heads/{value}"),
                "tag" => context.reference = format!("refs/tags/{value}"),
                "subdir" => context.folder = value.to_owned(),
                "checksum" | "commit" => context.checksum = Some(value.to_owned()),
                "keep-git-dir" => context.keep_git_dir = Some(matches!(value, "1" | "true")),
                "submodules" => context.no_submodules = matches!(value, "0" | "false"),
                _ => return None,
            }
        }
        Some(context)
    }

    /// The same where it must be this commit.
    pub(crate) fn expecting(mut self, checksum: Option<&str>) -> GitContext {
        self.checksum = checksum.map(str::to_owned).or(self.checksum);
        self
    }

    pub(crate) fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir.unwrap_or(false)
    }

    /// What of it decides over the files, beside the commit.
    pub(crate) fn identity(&self) -> String {
        format!("{} {}", self.folder.trim_matches('/'), !self.no_submodules)
    }

    /// Fetches the one commit, without its history; `.git` is left out unless asked for.
    pub fn fetch(&self, engine: &Engine, keep_git_dir: bool) -> Result<FetchedContext, BuildError> {
        let scratch = engine.store().new_scratch().map_err(unfetched)?;
        let work = new_folder(&scratch)?;
        let folder = self.check_out(&work, keep_git_dir)?.0;
        Ok(FetchedContext { folder, containerfile: None, _scratch: scratch })
    }

    /// The commit it stands for now, without fetching anything; None where only fetching would tell.
    pub(crate) fn commit(&self) -> Result<Option<String>, BuildError> {
        let found = match is_commit(&self.reference) {
            true => Some(self.reference.clone()),
            false => self.find()?.map(|remote| remote.commit),
        };
        if let (Some(wanted), Some(commit)) = (&self.checksum, &found)
            && !commit.starts_with(wanted.as_str())
        {
            return Err(self.other_commit(wanted, commit));
        }
        Ok(found)
    }

    /// Puts the files into the empty folder `work`. Returns the folder asked for, the commit and its time.
    pub(crate) fn check_out(
        &self,
        work: &Path,
        keep_git_dir: bool,
    ) -> Result<(PathBuf, String, CommitTime), BuildError> {
        git(work, &["init", "--quiet", "--template="])?;
        let named = if is_commit(&self.reference) { None } else { self.find()? };
        let wanted = named.as_ref().map_or(self.reference.as_str(), |remote| remote.name.as_str());
        let shallow = git(work, &["fetch", "--quiet", "--depth", "1", "--", &self.url, wanted]);
        match shallow {
            Ok(_) => git(work, &["checkout", "--quiet", "FETCH_HEAD"])?,
            // Part of a commit's name, or a server that gives out no single commits.
            Err(error) if named.is_none() => {
                let looks_like_one = self.reference.len() >= 4 && self.reference.bytes().all(|b| b.is_ascii_hexdigit());
                if !looks_like_one {
                    return Err(error);
                }
                git(work, &["fetch", "--quiet", "--", &self.url, "+refs/*:refs/remotes/origin/*"])?;
                git(work, &["checkout", "--quiet", "--detach", &self.reference]).map_err(|_| error)?
            }
            Err(error) => return Err(error),
        };
        if !self.no_submodules {
            git(work, &["submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1"])?;
        }
        let told = git(work, &["show", "--no-patch", "--format=%H %ct", "HEAD"])?;
        let (commit, time) = told.trim().split_once(' ').unwrap_or((told.trim(), "0"));
        let (commit, time) = (commit.to_owned(), time.parse().unwrap_or(0));
        if let Some(wanted) = self.checksum.as_ref().filter(|wanted| !commit.starts_with(wanted.as_str())) {
            return Err(self.other_commit(wanted, &commit));
        }
        if !keep_git_dir {
            let _history = std::fs::remove_dir_all(work.join(".git"));
        }
        Ok((self.beneath(work)?, commit, time))
    }

    fn beneath(&self, work: &Path) -> Result<PathBuf, BuildError> {
        let folder = work.join(self.folder.trim_start_matches('/'));
        let is_beneath = |(folder, work): &(PathBuf, PathBuf)| folder.starts_with(work) && folder.is_dir();
        let paths = folder.canonicalize().and_then(|folder| work.canonicalize().map(|work| (folder, work)));
        match paths.ok().filter(is_beneath) {
            Some((folder, _)) => Ok(folder),
            None => {
                Err(BuildError::Context { message: format!("there is no folder {:?} in {}", self.folder, self.url) })
            }
        }
    }

    /// Asks the repository what the reference is, in the order in which git itself looks.
    fn find(&self) -> Result<Option<Remote>, BuildError> {
        let reference = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        let listed = git(Path::new("/"), &["ls-remote", "--", &self.url, reference, &format!("{reference}^{{}}")])?;
        let known: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let commit_of = |name: &str| known.iter().find(|(_, listed)| *listed == name).map(|(commit, _)| *commit);
        for prefix in ["", "refs/", "refs/tags/", "refs/heads/"] {
            let name = format!("{prefix}{reference}");
            // Of an annotated tag it is the commit that counts, not the note.
            if let Some(commit) = commit_of(&format!("{name}^{{}}")).or_else(|| commit_of(&name)) {
                return Ok(Some(Remote { commit: commit.to_owned(), name }));
            }
        }
        Ok(None)
    }

    fn other_commit(&self, wanted: &str, found: &str) -> BuildError {
        let message = format!("digest mismatch: {} is at commit {found}, expected {wanted}", self.url);
        BuildError::Context { message }
    }
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Runs git and returns what it prints.
fn git(folder: &Path, arguments: &[&str]) -> Result<String, BuildError> {
    let wrong = |message: String| BuildError::Context { message };
    let mut command = Command::new("git");
    // No question is answered by a build, and neither submodules nor redirects lead to this machine's own files.
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh");
    command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    command.args([OsStr::new("-C"), folder.as_os_str()]).args(["-c", "advice.detachedHead=false"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("a git repository needs the program git: install it".to_owned()),
        _ => wrong(format!("cannot run git: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(wrong(format!("git {} failed: {last}", arguments.first().unwrap_or(&""))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn repositories_are_told_from_folders() {
        let parsed = |text: &str| GitContext::parse(text).map(|g| (g.url, g.reference, g.folder));
        let all =
            |url: &str, reference: &str, folder: &str| Some((url.to_owned(), reference.to_owned(), folder.to_owned()));
        assert_eq!(parsed("https://h/x.git"), all("https://h/x.git", "", ""));
        assert_eq!(parsed("https://h/x.git#v1:sub/dir"), all("https://h/x.git", "v1", "sub/dir"));
        assert_eq!(parsed("git@h:x#:sub"), all("git@h:x", "", "sub"));
        assert_eq!(parsed("github.com/a/b"), all("https://github.com/a/b", "", ""));
        assert_eq!(parsed("https://h/x.git?tag=v2&subdir=a"), all("https://h/x.git", "refs/tags/v2", "a"));
        assert_eq!(parsed("https://h/x.git?branch=b"), all("https://h/x.git", "refs/heads/b", ""));
        for folder in
            [".", "./x.git", "https://h/x.tar", "-", "ext::sh -c x", "https://h/x.git?colour=red", "file:///x.git"]
        {
            assert_eq!(parsed(folder), None, "{folder}");
        }
        let kept = GitContext::parse("https://h/x.git?keep-git-dir=1&checksum=abc").unwrap();
        assert_eq!((kept.keeps_git_dir(), kept.checksum.as_deref()), (true, Some("abc")));
    }
}
