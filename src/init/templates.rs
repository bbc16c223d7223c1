//! The files of `ctr init`: for every kind of project a recipe in stages, with caches that live on, a pinned base and a user
//! that is not root.

use super::{Kind, Manager, Project};

/// What is to be written: names and texts.
pub(crate) struct Plan {
    pub(crate) files: Vec<(&'static str, String)>,
}

/// The files for a project.
pub(crate) fn plan(project: &Project) -> Plan {
    let recipe = match &project.kind {
        Kind::Python(Manager::Conda) => conda(project),
        Kind::Python(manager) => python(project, *manager),
        Kind::Node { manager, builds } => node(project, manager, *builds),
        Kind::Rust { binary, is_locked } => rust(project, binary, *is_locked),
        Kind::Go { package, is_locked } => go(project, package, *is_locked),
        Kind::Java { gradle } => java(project, *gradle),
        Kind::Static(place) => site(project, place),
    };
    let files =
        vec![("Containerfile", recipe), (".containerignore", ignore(project)), ("settings.env", settings(project))];
    Plan { files }
}

/// Commands in JSON form: the program itself gets the signals.
fn words(command: &[String]) -> String {
    let quoted: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

const HEAD: &str = "# Written by ctr init; it is yours now.\n#   ctr build -t app .\n#   ctr run --rm -p";

fn head(project: &Project) -> String {
    format!("{HEAD} {0}:{0} --env-file settings.env app\n", project.port)
}

/// What every image of ours ends with.
fn tail(project: &Project) -> String {
    format!("EXPOSE {}\nCMD {}\n", project.port, words(&project.command))
}

const USER: &str = "RUN useradd --system --uid 10001 --home-dir /app app\nUSER 10001\n";

fn python(project: &Project, manager: Manager) -> String {
    let version = &project.version;
    let install = match manager {
        Manager::Uv => {
            "RUN pip install --no-cache-dir uv==0.8.*\nENV UV_PROJECT_ENVIRONMENT=/venv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never\n\
             COPY pyproject.toml uv.lock ./\nRUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-install-project\n"
        }
        Manager::Poetry => {
            "RUN pip install --no-cache-dir 'poetry==2.*'\nENV POETRY_VIRTUALENVS_CREATE=false VIRTUAL_ENV=/venv PATH=/venv/bin:$PATH\n\
             RUN python -m venv /venv\nCOPY pyproject.toml poetry.lock ./\n\
             RUN --mount=type=cache,target=/root/.cache/pypoetry poetry install --only main --no-root --no-interaction\n"
        }
        Manager::Project => {
            "RUN python -m venv /venv\nCOPY . .\nRUN --mount=type=cache,target=/root/.cache/pip /venv/bin/pip install .\n"
        }
        Manager::Pip | Manager::Conda => {
            "RUN python -m venv /venv\nCOPY requirements.txt ./\n\
             RUN --mount=type=cache,target=/root/.cache/pip /venv/bin/pip install -r requirements.txt\n"
        }
    };
    format!(
        "{}ARG PYTHON={version}\n\n# The packages: built anew only when the list of them changes.\nFROM python:${{PYTHON}}-slim-bookworm AS packages\nWORKDIR /app\n{install}\n\
         FROM python:${{PYTHON}}-slim-bookworm\nENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1\nWORKDIR /app\n{USER}\
         COPY --link --from=packages /venv /venv\nCOPY . .\n{}",
        head(project),
        tail(project)
    )
}

fn conda(project: &Project) -> String {
    format!(
        "{}FROM mambaorg/micromamba:2-debian12-slim AS packages\nWORKDIR /tmp\nCOPY environment.y*ml ./\n\
         RUN --mount=type=cache,target=/opt/conda/pkgs,uid=57439,gid=57439 \\\n    micromamba create --yes --always-copy --prefix /opt/env --file environment.y*ml python={}\n\n\
         FROM debian:bookworm-slim\nENV PATH=/opt/env/bin:$PATH PYTHONUNBUFFERED=1\nWORKDIR /app\n{USER}\
         COPY --link --from=packages /opt/env /opt/env\nCOPY . .\n{}",
        head(project),
        project.version,
        tail(project)
    )
}

fn node(project: &Project, manager: &str, builds: bool) -> String {
    let version = &project.version;
    let (files, install, prune) = match manager {
        "pnpm" => (
            "package.json pnpm-lock.yaml",
            "RUN corepack enable\nRUN --mount=type=cache,target=/root/.local/share/pnpm/store pnpm install --frozen-lockfile",
            "RUN pnpm prune --prod",
        ),
        "yarn" => (
            "package.json yarn.lock",
            "RUN corepack enable\nRUN --mount=type=cache,target=/usr/local/share/.cache/yarn yarn install --immutable || yarn install --frozen-lockfile",
            "RUN --mount=type=cache,target=/usr/local/share/.cache/yarn yarn workspaces focus --production || yarn install --production --frozen-lockfile",
        ),
        "npm" => (
            "package.json package-lock.json",
            "RUN --mount=type=cache,target=/root/.npm npm ci",
            "RUN npm prune --omit=dev",
        ),
        _ => ("package.json", "RUN --mount=type=cache,target=/root/.npm npm install", "RUN npm prune --omit=dev"),
    };
    let build =
        if builds { format!("RUN {} run build\n", manager.split(' ').next().unwrap_or("npm")) } else { String::new() };
    format!(
        "{}ARG NODE={version}\n\nFROM node:${{NODE}}-bookworm-slim AS build\nWORKDIR /app\nCOPY {files} ./\n{install}\nCOPY . .\n{build}{prune}\n\n\
         FROM node:${{NODE}}-bookworm-slim\nENV NODE_ENV=production\nWORKDIR /app\nCOPY --link --from=build /app /app\nUSER node\n{}",
        head(project),
        tail(project)
    )
}

fn rust(project: &Project, binary: &str, is_locked: bool) -> String {
    let (version, locked) = (&project.version, if is_locked { " --locked" } else { "" });
    format!(
        "{}FROM rust:{version}-slim-bookworm AS build\nWORKDIR /src\nCOPY . .\n\
         # What cargo fetched and compiled lives on between builds; only the program leaves it.\n\
         RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \\\n    \
         cargo build --release{locked} && cp target/release/{binary} /usr/local/bin/\n\n\
         FROM debian:bookworm-slim\nWORKDIR /app\n{USER}COPY --link --from=build /usr/local/bin/{binary} /usr/local/bin/\n{}",
        head(project),
        tail(project)
    )
}

fn go(project: &Project, package: &str, is_locked: bool) -> String {
    let (version, sums) = (&project.version, if is_locked { " go.sum" } else { "" });
    format!(
        "{}FROM golang:{version}-bookworm AS build\nWORKDIR /src\nCOPY go.mod{sums} ./\n\
         RUN --mount=type=cache,target=/go/pkg/mod go mod download\nCOPY . .\n\
         RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \\\n    \
         CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /app {package}\n\n\
         FROM gcr.io/distroless/static-debian12:nonroot\nCOPY --link --from=build /app /usr/local/bin/app\nUSER 65532\n{}",
        head(project),
        tail(project)
    )
}

fn java(project: &Project, gradle: bool) -> String {
    let version = &project.version;
    let (image, build) = match gradle {
        true => (
            format!("gradle:8-jdk{version}"),
            "RUN --mount=type=cache,target=/home/gradle/.gradle \\\n    gradle --no-daemon build -x test && \\\n    cp \"$(ls build/libs/*.jar | grep -v -- -plain | head -n 1)\" /app.jar",
        ),
        false => (
            format!("maven:3-eclipse-temurin-{version}"),
            "RUN --mount=type=cache,target=/root/.m2 \\\n    mvn --batch-mode -DskipTests package && \\\n    cp \"$(ls target/*.jar | grep -v -e -sources -e -javadoc -e original- | head -n 1)\" /app.jar",
        ),
    };
    format!(
        "{}FROM {image} AS build\nWORKDIR /src\nCOPY . .\n{build}\n\n\
         FROM eclipse-temurin:{version}-jre\nWORKDIR /app\n{USER}COPY --link --from=build /app.jar /app/app.jar\n{}",
        head(project),
        tail(project)
    )
}

fn site(project: &Project, place: &str) -> String {
    format!(
        "{}FROM nginxinc/nginx-unprivileged:{}-alpine\nCOPY --link {place}/ /usr/share/nginx/html/\nUSER 101\n{}",
        head(project),
        project.version,
        tail(project)
    )
}

fn ignore(project: &Project) -> String {
    let own: &[&str] = match &project.kind {
        Kind::Python(_) => {
            &["**/__pycache__", "**/*.pyc", ".venv", "venv", ".pytest_cache", ".mypy_cache", "*.egg-info"]
        }
        Kind::Node { .. } => &["node_modules", "dist", ".next", "npm-debug.log*"],
        Kind::Rust { .. } => &["target"],
        Kind::Go { .. } => &["bin", "vendor"],
        Kind::Java { .. } => &["target", "build", ".gradle"],
        Kind::Static(_) => &[],
    };
    let common =
        [".git", ".gitignore", ".github", ".idea", ".vscode", "Containerfile", "Dockerfile", ".containerignore"];
    let secrets = ["settings.env", ".env", ".env.*", "*.pem", "*.key"];
    let mut text = "# What the image does not need, or must not hold.\n".to_owned();
    for name in common.iter().chain(own).chain(&secrets) {
        text.push_str(name);
        text.push('\n');
    }
    text
}

fn settings(project: &Project) -> String {
    let more = match &project.kind {
        Kind::Node { .. } => "NODE_ENV=production\n",
        Kind::Rust { .. } => "RUST_LOG=info\n",
        _ => "",
    };
    format!(
        "# Settings of one place it runs in; given to it by --env-file, never part of the image.\nPORT={}\n{more}",
        project.port
    )
}
