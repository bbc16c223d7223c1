//! Clients: on this machine, and from outside it.

use crate::wait::{PATIENCE, eventually};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The body at `http://address/path`, asked for until the server is up.
#[track_caller]
pub fn http_get(address: &str, path: &str) -> String {
    let mut last = None;
    eventually(&format!("an answer from http://{address}{path}"), || match http_try(address, path) {
        Ok(body) => Some(body),
        Err(error) => {
            last = Some(error);
            None
        }
    })
}

/// One attempt at the same. An answer other than 200 is an error.
pub fn http_try(address: &str, path: &str) -> io::Result<String> {
    let target = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&target, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // Scripts end their header lines as they like.
    let end = [answer.find("\r\n\r\n").map(|at| (at, 4)), answer.find("\n\n").map(|at| (at, 2))];
    let (at, length) = end.into_iter().flatten().min().ok_or(io::ErrorKind::UnexpectedEof)?;
    let (head, body) = (&answer[..at], &answer[at + length..]);
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(io::Error::other(head.to_owned())) }
}

/// Sends a datagram until one comes back, and returns that. The reply must come from the address asked.
#[track_caller]
pub fn udp_ask(address: &str, text: &str) -> String {
    let bind = if address.starts_with('[') { "[::1]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(bind).expect("an unbound port");
    socket.connect(address).expect("an address of this machine");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit can be set");
    eventually(&format!("a datagram from {address}"), || {
        let mut buffer = [0; 2048];
        let _ = socket.send(text.as_bytes());
        socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
    })
}

/// A network namespace joined to the host by a veth: a client from outside, whose traffic is routed
/// and translated as that of another machine. It ends with the process that holds it.
pub struct Namespace {
    holder: Child,
    /// The host's address as the client sees it.
    pub host: String,
    /// The client's own address.
    pub client: String,
}

impl Namespace {
    /// Makes one. `number` (1 to 250) keeps the addresses of tests that run side by side apart.
    #[track_caller]
    pub fn new(number: u8) -> Namespace {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sh", "-c", "echo ready; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("unshare runs");
        let mut line = String::new();
        let out = holder.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("the holder says ready");
        let pid = holder.id().to_string();
        let (host, client) = (format!("10.213.{number}.1"), format!("10.213.{number}.2"));
        let (outer, inner) = (format!("cttest{number}"), format!("ctpeer{number}"));
        let namespace = Namespace { holder, host: host.clone(), client: client.clone() };
        let ip = |words: &str| {
            let out = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
            assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
        };
        ip(&format!("link add {outer} type veth peer name {inner} netns {pid}"));
        ip(&format!("address add {host}/24 dev {outer}"));
        ip(&format!("link set {outer} up"));
        namespace.run(&["ip", "link", "set", "lo", "up"]);
        namespace.run(&["ip", "address", "add", &format!("{client}/24"), "dev", &inner]);
        namespace.run(&["ip", "link", "set", &inner, "up"]);
        namespace.run(&["ip", "route", "add", "default", "via", &host]);
        namespace
    }

    /// Runs a program of the host inside the namespace.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        let pid = self.holder.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &pid, "--"]).args(words).stdin(Stdio::null());
        command.output().expect("nsenter runs")
    }

    /// `curl` from inside, asked until it succeeds.
    #[track_caller]
    pub fn curl(&self, url: &str) -> String {
        eventually(&format!("{url} from outside ({PATIENCE:?})"), || {
            let out = self.run(&["curl", "--silent", "--fail", "--max-time", "3", url]);
            out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
