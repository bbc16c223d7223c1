//! `ctr init`: a Containerfile for the project that is there.

use test_support::TestEnv;

/// Files of a project, and lines that what is written for it must hold.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const PROJECTS: &[Row] = &[
    (
        "pip",
        &[("requirements.txt", "Flask==3.0\n"), ("app.py", ""), (".python-version", "3.12.4\n")],
        &["ARG PYTHON=3.12", "pip install -r requirements.txt", "\"flask\", \"--app\", \"app\""],
    ),
    (
        "uv",
        &[
            ("pyproject.toml", "[project]\nrequires-python = \">=3.11\"\ndependencies = [\"fastapi\"]\n"),
            ("uv.lock", ""),
            ("main.py", ""),
        ],
        &["ARG PYTHON=3.11", "uv sync --frozen", "\"uvicorn\", \"main:app\""],
    ),
    (
        "poetry",
        &[("pyproject.toml", "[tool.poetry.dependencies]\npython = \"^3.10\"\n"), ("poetry.lock", "")],
        &["ARG PYTHON=3.10", "poetry install --only main"],
    ),
    (
        "conda",
        &[("environment.yml", "dependencies:\n  - python\n")],
        &["micromamba create", "COPY --link --from=packages /opt/env"],
    ),
    ("project", &[("pyproject.toml", "[project]\nname = \"x\"\n")], &["pip install ."]),
    (
        "django",
        &[("requirements.txt", "Django\ngunicorn\n"), ("manage.py", ""), ("shop/wsgi.py", "")],
        &["\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"shop.wsgi\""],
    ),
    (
        "npm",
        &[
            ("package.json", "{\"scripts\":{\"build\":\"x\",\"start\":\"y\"},\"engines\":{\"node\":\">=20\"}}"),
            ("package-lock.json", "{}"),
        ],
        &["ARG NODE=20", "npm ci", "RUN npm run build", "CMD [\"npm\", \"start\"]"],
    ),
    (
        "pnpm",
        &[("package.json", "{\"main\":\"server.js\"}"), ("pnpm-lock.yaml", "")],
        &["pnpm install --frozen-lockfile", "CMD [\"node\", \"server.js\"]"],
    ),
    (
        "rust",
        &[("Cargo.toml", "[package]\nname = \"tool\"\nrust-version = \"1.85\"\n"), ("Cargo.lock", "")],
        &["FROM rust:1.85-slim-bookworm AS build", "--locked", "CMD [\"/usr/local/bin/tool\"]"],
    ),
    (
        "go",
        &[("go.mod", "module x\n\ngo 1.24.1\n"), ("go.sum", ""), ("cmd/server/main.go", "")],
        &["FROM golang:1.24-bookworm AS build", "./cmd/server", "COPY go.mod go.sum ./"],
    ),
    (
        "maven",
        &[("pom.xml", "<project><maven.compiler.release>17</maven.compiler.release></project>")],
        &["maven:3-eclipse-temurin-17", "eclipse-temurin:17-jre"],
    ),
    ("gradle", &[("build.gradle.kts", "")], &["gradle:8-jdk21", "gradle --no-daemon build"]),
    ("site", &[("public/index.html", "<p>hello")], &["COPY --link public/ /usr/share/nginx/html/"]),
];

#[test]
fn every_kind_of_project_gets_its_recipe() {
    let env = TestEnv::empty();
    for (name, files, lines) in PROJECTS {
        for (file, text) in *files {
            env.write(&format!("{name}/{file}"), text);
        }
        env.ctr(["init", name])
            .ok()
            .prints("because of")
            .prints("written: Containerfile, .containerignore, settings.env");
        let read = |file: &str| std::fs::read_to_string(env.path(&format!("{name}/{file}"))).unwrap_or_default();
        let recipe = read("Containerfile");
        for line in *lines {
            assert!(recipe.contains(line), "{name}: no {line:?} in\n{recipe}");
        }
        assert!(
            recipe.contains("\nUSER ") && !recipe.contains(":latest"),
            "{name}: a user and a pinned base\n{recipe}"
        );
        assert!(read(".containerignore").contains("settings.env") && read("settings.env").contains("PORT="), "{name}");
        // It says nothing that lint would say better.
        env.ctr(["build", "--check", name]).ok().prints("no warnings found");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let env = TestEnv::empty();
    env.write("p/go.mod", "module x\n");
    env.write("p/settings.env", "mine");
    env.ctr("init p").fails(1).says("settings.env is there already").says("--force");
    assert!(!env.path("p/Containerfile").exists());
    env.ctr("init --force p").ok();
    assert!(env.path("p/Containerfile").exists());
    env.write("other/Dockerfile", "FROM scratch\n");
    env.write("other/index.html", "x");
    env.ctr("init other").fails(1).says("Dockerfile is there already");
    env.write("empty/readme", "");
    env.ctr("init empty").fails(1).says("what kind of project").says("go.mod");
    env.ctr("init missing").fails(1).says_it_plainly();
}
