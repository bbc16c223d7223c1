//! What kind of project a folder holds, as its own files say.

use crate::error::CliError;
use serde_json::Value;
use std::path::Path;

/// The largest file looked into, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A project, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Project {
    pub(crate) kind: Kind,
    /// The language's version; what it is taken from is in `reasons`.
    pub(crate) version: String,
    /// The program to start, as words.
    pub(crate) command: Vec<String>,
    /// What it listens on.
    pub(crate) port: u16,
    /// Why all this, a line each.
    pub(crate) reasons: Vec<String>,
}

/// Kinds of projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Python(Manager),
    /// The package manager, and whether there is a build script.
    Node {
        manager: &'static str,
        builds: bool,
    },
    /// The binary's name, and whether Cargo.lock is there.
    Rust {
        binary: String,
        is_locked: bool,
    },
    /// The package to build, and whether go.sum is there.
    Go {
        package: String,
        is_locked: bool,
    },
    /// By Gradle, else by Maven; whether its wrapper is there.
    Java {
        gradle: bool,
    },
    /// The folder the site lies in.
    Static(String),
}

/// Who installs a Python project's packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Pip,
    /// `pip install .`
    Project,
    Uv,
    Poetry,
    Conda,
}

/// Finds one kind of project.
type Look = fn(&Folder<'_>) -> Result<Option<Project>, CliError>;

/// A project's folder, as far as it is read.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.join(name).is_file()
    }

    /// A file's text; empty where there is none.
    fn text(&self, name: &str) -> Result<String, CliError> {
        let path = self.0.join(name);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE_BYTES => {}
            _ => return Ok(String::new()),
        }
        let bytes = std::fs::read(&path).map_err(|e| CliError::io("read", path.display(), &e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Looks at a folder. None: nothing in it says what it is.
pub(crate) fn detect(path: &Path) -> Result<Option<Project>, CliError> {
    let folder = Folder(path);
    let looks: [Look; 6] = [go, rust, java, node, python, site];
    for look in looks {
        if let Some(found) = look(&folder)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn python(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    let conda = ["environment.yml", "environment.yaml"].into_iter().find(|name| folder.has(name));
    let (manager, why) = match conda {
        _ if folder.has("uv.lock") => (Manager::Uv, "uv.lock: packages by uv, as locked"),
        _ if folder.has("poetry.lock") => (Manager::Poetry, "poetry.lock: packages by Poetry, as locked"),
        Some(_) => (Manager::Conda, "environment.yml: packages by conda (micromamba)"),
        _ if folder.has("requirements.txt") => (Manager::Pip, "requirements.txt: packages by pip"),
        _ if folder.has("pyproject.toml") => (Manager::Project, "pyproject.toml: the project itself by pip"),
        _ => return Ok(None),
    };
    let mut reasons = vec![format!("Python, because of {why}")];
    let project = folder.text("pyproject.toml")?;
    let asked = setting(&project, "requires-python").or_else(|| setting(&project, "python"));
    let own = folder.text(".python-version")?.trim().to_owned();
    let version = match (minor(&own), asked.as_deref().and_then(minor)) {
        (Some(version), _) => said(&mut reasons, version, ".python-version"),
        (None, Some(version)) => said(&mut reasons, version, "requires-python in pyproject.toml"),
        _ => unsaid(&mut reasons, "3.13", "write .python-version to choose"),
    };
    let wanted: String = [&project, &folder.text("requirements.txt")?, &folder.text(conda.unwrap_or(""))?]
        .into_iter()
        .map(|text| text.to_lowercase())
        .collect();
    let main = ["main", "app", "server", "wsgi", "run"].into_iter().find(|name| folder.has(&format!("{name}.py")));
    let module = main.unwrap_or("main");
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let (command, port, why) = if folder.has("manage.py") {
        let site = folder.names().into_iter().find(|name| folder.has(&format!("{name}/wsgi.py"))).unwrap_or_default();
        match wanted.contains("gunicorn") && !site.is_empty() {
            true => (words(format!("gunicorn --bind 0.0.0.0:8000 {site}.wsgi")), 8000, "manage.py and gunicorn"),
            false => (words("python manage.py runserver 0.0.0.0:8000".to_owned()), 8000, "manage.py"),
        }
    } else if wanted.contains("streamlit") {
        (words(format!("streamlit run {module}.py --server.address=0.0.0.0")), 8501, "streamlit")
    } else if wanted.contains("fastapi") || wanted.contains("uvicorn") {
        (words(format!("uvicorn {module}:app --host 0.0.0.0 --port 8000")), 8000, "uvicorn or fastapi")
    } else if wanted.contains("gunicorn") {
        (words(format!("gunicorn --bind 0.0.0.0:8000 {module}:app")), 8000, "gunicorn")
    } else if wanted.contains("flask") {
        (words(format!("flask --app {module} run --host 0.0.0.0 --port 8000")), 8000, "flask")
    } else {
        (words(format!("python {module}.py")), 8000, if main.is_some() { "its file" } else { "" })
    };
    reasons.push(match why {
        "" => format!("it is started by `{}`, since no file says how; change CMD", command.join(" ")),
        why => format!("it is started by `{}`, because of {why}", command.join(" ")),
    });
    Ok(Some(Project { kind: Kind::Python(manager), version, command, port, reasons }))
}

fn node(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    if !folder.has("package.json") {
        return Ok(None);
    }
    let package: Value = serde_json::from_str(&folder.text("package.json")?)
        .map_err(|e| CliError::new(format!("package.json cannot be read: {e}")))?;
    let (manager, why) = match () {
        () if folder.has("pnpm-lock.yaml") => ("pnpm", "pnpm-lock.yaml"),
        () if folder.has("yarn.lock") => ("yarn", "yarn.lock"),
        () if folder.has("package-lock.json") => ("npm", "package-lock.json"),
        () => ("npm install", "package.json; a lock file would pin the packages"),
    };
    let mut reasons = vec![format!("Node, because of package.json; packages by {manager}, because of {why}")];
    let own = folder.text(".nvmrc")?;
    let engine = package["engines"]["node"].as_str().unwrap_or_default();
    let version = match (major(own.trim()), major(engine)) {
        (Some(version), _) => said(&mut reasons, version, ".nvmrc"),
        (None, Some(version)) => said(&mut reasons, version, "engines.node in package.json"),
        _ => unsaid(&mut reasons, "22", "write .nvmrc to choose"),
    };
    let script = |name: &str| package["scripts"][name].is_string();
    let builds = script("build");
    if builds {
        reasons.push("its build script is run, and only what the program needs goes into the image".to_owned());
    }
    let main = package["main"].as_str().unwrap_or("index.js");
    let command: Vec<String> = match script("start") {
        true => ["npm", "start"].map(str::to_owned).to_vec(),
        false => vec!["node".to_owned(), main.to_owned()],
    };
    reasons.push(format!("it is started by `{}`", command.join(" ")));
    Ok(Some(Project { kind: Kind::Node { manager, builds }, version, command, port: 3000, reasons }))
}

fn rust(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    if !folder.has("Cargo.toml") {
        return Ok(None);
    }
    let manifest = folder.text("Cargo.toml")?;
    let mut reasons = vec!["Rust, because of Cargo.toml".to_owned()];
    let name = setting(&manifest, "name").unwrap_or_else(|| "app".to_owned());
    let toolchain = folder.text("rust-toolchain.toml")?;
    let chosen = setting(&toolchain, "channel").or_else(|| setting(&manifest, "rust-version"));
    let version = match chosen.as_deref().and_then(minor) {
        Some(version) => said(&mut reasons, version, "rust-toolchain.toml or rust-version"),
        None => unsaid(&mut reasons, "1.90", "write rust-version into Cargo.toml to choose"),
    };
    reasons.push(format!("its program is {name}, because of the package's name"));
    let is_locked = folder.has("Cargo.lock");
    let command = vec![format!("/usr/local/bin/{name}")];
    Ok(Some(Project { kind: Kind::Rust { binary: name, is_locked }, version, command, port: 8080, reasons }))
}

fn go(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    if !folder.has("go.mod") {
        return Ok(None);
    }
    let module = folder.text("go.mod")?;
    let mut reasons = vec!["Go, because of go.mod".to_owned()];
    let line = module.lines().find_map(|line| line.trim().strip_prefix("go "));
    let version = match line.and_then(minor) {
        Some(version) => said(&mut reasons, version, "the go line of go.mod"),
        None => unsaid(&mut reasons, "1.25", "write a go line into go.mod to choose"),
    };
    let commands = Folder(&folder.0.join("cmd")).names();
    let package = match (folder.has("main.go"), commands.first()) {
        (false, Some(first)) => format!("./cmd/{first}"),
        _ => ".".to_owned(),
    };
    reasons.push(format!("its program is the package {package}"));
    let is_locked = folder.has("go.sum");
    let command = vec!["/usr/local/bin/app".to_owned()];
    Ok(Some(Project { kind: Kind::Go { package, is_locked }, version, command, port: 8080, reasons }))
}

fn java(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    let gradle = folder.has("build.gradle") || folder.has("build.gradle.kts");
    if !gradle && !folder.has("pom.xml") {
        return Ok(None);
    }
    let file = if gradle { "build.gradle" } else { "pom.xml" };
    let mut reasons = vec![format!("Java, because of {file}")];
    let pom = folder.text("pom.xml")?;
    let tag = |name: &str| {
        let rest = pom.split_once(&format!("<{name}>"))?.1;
        major(rest.split('<').next()?)
    };
    let asked = tag("maven.compiler.release").or_else(|| tag("maven.compiler.source")).or_else(|| tag("java.version"));
    let version = match asked {
        Some(version) => said(&mut reasons, version, "pom.xml"),
        None => unsaid(&mut reasons, "21", "it is the long-lived one"),
    };
    let command = ["java", "-jar", "/app/app.jar"].map(str::to_owned).to_vec();
    Ok(Some(Project { kind: Kind::Java { gradle }, version, command, port: 8080, reasons }))
}

fn site(folder: &Folder<'_>) -> Result<Option<Project>, CliError> {
    let places = ["public", "dist", "site", "www", "."];
    let Some(place) = places.into_iter().find(|place| folder.has(&format!("{place}/index.html"))) else {
        return Ok(None);
    };
    let reasons = vec![format!("a static site, because of index.html in {place}")];
    let command = ["nginx", "-g", "daemon off;"].map(str::to_owned).to_vec();
    let version = "1.29".to_owned();
    Ok(Some(Project { kind: Kind::Static(place.to_owned()), version, command, port: 8080, reasons }))
}

fn said(reasons: &mut Vec<String>, version: String, source: &str) -> String {
    reasons.push(format!("version {version}, because of {source}"));
    version
}

fn unsaid(reasons: &mut Vec<String>, version: &str, advice: &str) -> String {
    reasons.push(format!("version {version}, since no file says one; {advice}"));
    version.to_owned()
}

/// `name = "value"` of a TOML text, the first.
fn setting(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then_some(value.trim())
    })?;
    let value = line.strip_prefix('"')?;
    Some(value.split('"').next()?.to_owned())
}

/// `3.12` of `>=3.12,<4`, `3.12.4`, `~3.12`.
fn minor(text: &str) -> Option<String> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let digits: String = text[start..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mut parts = digits.split('.').filter(|part| !part.is_empty());
    Some(format!("{}.{}", parts.next()?, parts.next()?))
}

/// `22` of `>=22.1`, `v22`, `22`.
fn major(text: &str) -> Option<String> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    Some(text[start..].chars().take_while(char::is_ascii_digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_out_of_ranges() {
        assert_eq!(minor(">=3.11,<4").as_deref(), Some("3.11"));
        assert_eq!(minor("3.12.4\n").as_deref(), Some("3.12"));
        assert_eq!(minor("stable"), None);
        assert_eq!(major("v20.1").as_deref(), Some("20"));
        assert_eq!(major("lts/*"), None);
        assert_eq!(setting("[x]\nname = \"a\" # b\n", "name").as_deref(), Some("a"));
    }
}
