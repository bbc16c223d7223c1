//! `docker-credential-NAME` programs: one word as argument, the rest on stdin, the answer on stdout.

use crate::{Credential, CredentialError};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The largest answer taken, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// A helper may ask the user to unlock a key, so it gets this long.
const PATIENCE: Duration = Duration::from_secs(300);
/// In a helper's answer this user name says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

pub(crate) fn get(path: &[PathBuf], name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    let output = run(path, name, "get", server)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.fine {
        // The protocol has no other sign for it than these words.
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(name, "get", &output));
    }
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|e| CredentialError(format!("docker-credential-{name} get: an unusable answer: {e}")))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::IdentityToken(answer.secret),
        _ => Credential::Basic { username: answer.username, password: answer.secret },
    }))
}

pub(crate) fn store(
    path: &[PathBuf],
    name: &str,
    server: &str,
    credential: &Credential,
) -> Result<(), CredentialError> {
    let (username, secret) = match credential {
        Credential::Basic { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => (TOKEN_USER, token),
    };
    let input = serde_json::json!({ "ServerURL": server, "Username": username, "Secret": secret }).to_string();
    let output = run(path, name, "store", &input)?;
    if output.fine { Ok(()) } else { Err(failed(name, "store", &output)) }
}

/// False if the helper had nothing to forget.
pub(crate) fn erase(path: &[PathBuf], name: &str, server: &str) -> Result<bool, CredentialError> {
    if get(path, name, server)?.is_none() {
        return Ok(false);
    }
    let output = run(path, name, "erase", server)?;
    if output.fine { Ok(true) } else { Err(failed(name, "erase", &output)) }
}

struct Output {
    fine: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn failed(name: &str, action: &str, output: &Output) -> CredentialError {
    let words =
        [&output.stderr, &output.stdout].map(|bytes| crate::error::one_line(&String::from_utf8_lossy(bytes), 300));
    let words = words.into_iter().find(|w| !w.is_empty()).unwrap_or_else(|| "it failed without a word".to_owned());
    CredentialError(format!("docker-credential-{name} {action}: {words}"))
}

/// Looks the program up in the directories of PATH.
fn find(path: &[PathBuf], name: &str) -> Result<PathBuf, CredentialError> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let program = format!("docker-credential-{name}");
    let runs = |file: &Path| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    path.iter().map(|dir| dir.join(&program)).filter(|_| plain).find(|file| runs(file)).ok_or_else(|| {
        CredentialError(format!("the credential file asks for the program {program:?}, which is not in PATH"))
    })
}

fn run(path: &[PathBuf], name: &str, action: &str, input: &str) -> Result<Output, CredentialError> {
    let program = find(path, name)?;
    let error = |e: std::io::Error| CredentialError(format!("run {} {action}: {e}", program.display()));
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read its input says what is wrong by itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || sender.send(read(stderr)));
    let (out_sender, out_receiver) = mpsc::channel();
    std::thread::spawn(move || out_sender.send(read(stdout)));
    let answers = out_receiver.recv_timeout(PATIENCE).and_then(|out| Ok((out, receiver.recv_timeout(PATIENCE)?)));
    let Ok((stdout, stderr)) = answers else {
        stop(&mut child);
        let seconds = PATIENCE.as_secs();
        return Err(CredentialError(format!("docker-credential-{name} {action}: no answer within {seconds} s")));
    };
    let status = child.wait().map_err(error)?;
    Ok(Output { fine: status.success(), stdout, stderr })
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
