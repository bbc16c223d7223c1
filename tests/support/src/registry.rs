//! Debian's docker-registry, one for each test that wants it.

use crate::http::TokenServer;
use crate::wait::PATIENCE;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use tempfile::TempDir;

/// How the registry is to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryKind {
    /// Plain HTTP, no password.
    Plain,
    /// Plain HTTP with basic authentication.
    Password,
    /// HTTPS with a certificate of an authority of its own.
    Tls,
    /// Both.
    TlsPassword,
}

/// A running registry on a free port of 127.0.0.1. Dropped, it is killed and its data removed.
pub struct Registry {
    server: Child,
    dir: TempDir,
    port: u16,
}

impl Registry {
    /// The user that [`RegistryKind::Password`] lets in.
    pub const USER: &str = "ali";
    /// Its password.
    pub const PASSWORD: &str = "opensesame";
    /// Of the same password: bcrypt, the one scheme that the registry takes.
    const HASH: &str = "$2y$05$CtrTestsCtrTestsCtrTee0F6LrvZ1l/iEwMDExL3nttXYinTDx4y";

    /// Starts one and waits until it listens.
    #[track_caller]
    pub fn start(kind: RegistryKind) -> Registry {
        Registry::run(|dir| configuration(kind, dir))
    }

    /// One that believes the tokens of a service.
    #[track_caller]
    pub fn start_with_tokens(kind: RegistryKind, tokens: &TokenServer) -> Registry {
        Registry::run(|dir| {
            configuration(kind, dir)
                + &format!(
                    "auth:\n  token: {{realm: \"{}\", service: {}, issuer: {}, rootcertbundle: {}}}\n",
                    tokens.realm(),
                    TokenServer::SERVICE,
                    TokenServer::ISSUER,
                    tokens.certificate().display()
                )
        })
    }

    #[track_caller]
    fn run(configuration: impl FnOnce(&Path) -> String) -> Registry {
        let dir = tempfile::Builder::new().prefix("ctr-registry-").tempdir().expect("a temporary folder");
        let config = dir.path().join("config.yml");
        fs::write(&config, configuration(dir.path())).expect("a new folder takes files");
        let mut server = Command::new("docker-registry");
        server.arg("serve").arg(&config).env_remove("REGISTRY_HTTP_ADDR");
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut server = server.unwrap_or_else(|error| panic!("docker-registry ({error}): run scripts/test-deps"));
        // It takes a free port by itself and names it in its log; the rest of the log is read and dropped.
        let (send, port) = channel();
        let log = server.stderr.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if let Some(port) = listening_port(&line) {
                    let _ = send.send(port);
                }
            }
        });
        let Ok(port) = port.recv_timeout(PATIENCE) else {
            let _ = server.kill();
            panic!("docker-registry does not say where it listens");
        };
        Registry { server, dir, port }
    }

    /// `127.0.0.1:port`, as it stands in image names.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The registry's data, for tests that spoil it.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends it before its time, as a registry that dies under a transfer.
    pub fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configuration(kind: RegistryKind, dir: &Path) -> String {
    let tls = matches!(kind, RegistryKind::Tls | RegistryKind::TlsPassword);
    let password = matches!(kind, RegistryKind::Password | RegistryKind::TlsPassword);
    let path = dir.display();
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, formatter: text}}\nstorage:\n  filesystem: {{rootdirectory: {path}/data}}\n  \
         delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:0\n"
    );
    if tls {
        certificates(dir);
        text += &format!("  tls: {{certificate: {path}/server.crt, key: {path}/server.key}}\n");
    }
    if password {
        let users = format!("{}:{}\n", Registry::USER, Registry::HASH);
        fs::write(dir.join("htpasswd"), users).expect("a new folder takes files");
        text += &format!("auth:\n  htpasswd: {{realm: tests, path: {path}/htpasswd}}\n");
    }
    text
}

/// An authority and a server's certificate for 127.0.0.1 and localhost, by openssl.
fn certificates(dir: &Path) {
    let openssl = |words: &[&str]| {
        let out = Command::new("openssl").args(words).current_dir(dir).stdin(Stdio::null()).output();
        let out = out.unwrap_or_else(|error| panic!("openssl ({error}): run scripts/test-deps"));
        assert!(out.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ctr test authority"];
    openssl(&[&["req", "-x509"][..], &key, &ca].concat());
    let request = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"];
    openssl(&[&["req", "-new"][..], &key, &request].concat());
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n";
    fs::write(dir.join("names.cnf"), names).expect("a new folder takes files");
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-out", "server.crt", "-days", "2", "-extfile", "names.cnf"]].concat());
}

/// The port in `msg="listening on 127.0.0.1:40123, tls"`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_each_kind() {
        for kind in [RegistryKind::Plain, RegistryKind::Password, RegistryKind::Tls, RegistryKind::TlsPassword] {
            let registry = Registry::start(kind);
            let scheme = if registry.ca().exists() { "https" } else { "http" };
            let url = format!("{scheme}://{}/v2/", registry.address());
            let login = format!("{}:{}", Registry::USER, Registry::PASSWORD);
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", "--user", &login, &url]);
            if scheme == "https" {
                curl.arg("--cacert").arg(registry.ca());
            }
            assert_eq!(curl.output().unwrap().stdout, b"{}", "{kind:?}");
        }
    }
}
