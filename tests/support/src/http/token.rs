//! A token service: what stands behind `WWW-Authenticate: Bearer`. Its tokens are signed, so that Debian's
//! docker-registry (`auth: token`) lets in whoever brings one.

use super::server::{Reply, Seen, Server, answer};
use crate::Registry;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Gives tokens to [`Registry::USER`] for everything, and to others for pulling from `public/…`.
pub struct TokenServer {
    server: Server,
    /// Not among what is shared: the server's thread never ends, and what it holds is never removed.
    dir: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    /// Of the key and its certificate.
    dir: PathBuf,
    /// Tokens that are to be out of date when they are handed out.
    stale: AtomicU64,
}

impl TokenServer {
    /// What the registry and the service call each other.
    pub const SERVICE: &str = "ctr-tests";
    /// Who signs.
    pub const ISSUER: &str = "ctr-test-issuer";

    /// Starts one, with a key of its own.
    #[track_caller]
    pub fn start() -> TokenServer {
        let dir = tempfile::Builder::new().prefix("ctr-token-").tempdir().expect("a temporary folder");
        let words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"];
        openssl(dir.path(), &[&words[..], &["-days", "2", "-subj", "/CN=ctr test tokens"]].concat(), b"");
        let shared = Arc::new(Shared { dir: dir.path().to_owned(), stale: AtomicU64::new(0) });
        let inner = shared.clone();
        TokenServer { server: Server::start(move |seen, _| inner.reply(seen)), dir, shared }
    }

    /// The URL that a registry names as its realm.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.address)
    }

    /// The certificate that a registry believes.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// The next so many tokens are out of date already.
    pub fn expire_next(&self, count: u64) {
        self.shared.stale.store(count, Ordering::SeqCst);
    }
}

impl Shared {
    fn reply(&self, seen: &Seen) -> Reply {
        let login = STANDARD.encode(format!("{}:{}", Registry::USER, Registry::PASSWORD));
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let known = match (seen.method.as_str(), seen.header("authorization")) {
            ("POST", _) => form.contains("refresh_token=opensesame"),
            (_, "") => false,
            (_, header) if header == format!("Basic {login}") => true,
            _ => return answer(401, "", r#"{"details":"incorrect username or password"}"#),
        };
        let wanted = if seen.method == "POST" { form } else { seen.target.clone() };
        let access: Vec<serde_json::Value> = scopes(&wanted).iter().filter_map(|s| grant(s, known)).collect();
        let stale = self.stale.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let token = self.sign(&access, stale);
        answer(200, "Content-Type: application/json", serde_json::json!({ "token": token }).to_string())
    }

    fn sign(&self, access: &[serde_json::Value], stale: bool) -> String {
        let dir = &self.dir;
        let der = openssl(dir, &["x509", "-in", "cert.pem", "-outform", "DER"], b"");
        let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "x5c": [STANDARD.encode(der)] });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let (from, to) = if stale { (now - 7200, now - 3600) } else { (now - 60, now + 300) };
        let claims = serde_json::json!({
            "iss": TokenServer::ISSUER, "aud": TokenServer::SERVICE, "sub": "", "jti": "1",
            "iat": from, "nbf": from, "exp": to, "access": access,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = openssl(dir, &["dgst", "-sha256", "-sign", "key.pem"], signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The scopes of a query or a form.
fn scopes(text: &str) -> Vec<String> {
    let pairs = text.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope="));
    let plain =
        pairs.map(|value| value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%20", " "));
    plain.flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What of a scope is granted: `repository:a/b:pull,push`.
fn grant(scope: &str, known: bool) -> Option<serde_json::Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let public = name.starts_with("public/");
    let actions: Vec<&str> = actions.split(',').filter(|action| known || (public && *action == "pull")).collect();
    Some(serde_json::json!({ "type": kind, "name": name, "actions": actions }))
}

fn openssl(dir: &Path, words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl");
    let child = child.args(words).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap_or_else(|error| panic!("openssl ({error}): run scripts/test-deps"));
    child.stdin.take().expect("piped").write_all(input).expect("openssl reads");
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
