//! What the client's tests share: a resolver that knows one name, clients with short patience, and a
//! server that answers as badly as it is told to.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use registry_client::{ClientConfig, Credential, CredentialError, Credentials, Registry, Resolve};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Every name is this machine.
pub struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
    }
}

/// The same credential for every registry.
pub struct Login(pub Credential);

impl Login {
    pub fn basic(username: &str, password: &str) -> Login {
        Login(Credential::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

impl Credentials for Login {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(Some(self.0.clone()))
    }
}

/// A configuration that retries soon. Its waits are long enough for a machine under load.
pub fn quick() -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        backoff: Duration::from_millis(5),
        retries: 3,
        ..ClientConfig::new(Arc::new(Loopback))
    }
}

/// A client with that configuration.
pub fn client() -> Registry {
    Registry::new(quick())
}

/// A client that logs in.
pub fn client_as(credentials: impl Credentials + 'static) -> Registry {
    Registry::new(ClientConfig { credentials: Arc::new(credentials), ..quick() })
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the server does with it.
pub enum Reply {
    /// Status line and headers in one text, then the body; `Content-Length` is added unless named.
    Answer(String, Vec<u8>),
    /// As they are, then the connection is closed.
    Bytes(Vec<u8>),
    /// One byte at a time with a pause between.
    Drip(Vec<u8>, Duration),
    /// Nothing at all, the connection stays open until the client goes.
    Silence,
}

/// `200` or `404 Not Found`, headers one a line, and a body.
pub fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    for line in headers.lines().map(str::trim).filter(|l| !l.is_empty()) {
        head += &format!("{line}\r\n");
    }
    Reply::Answer(head, body.as_ref().to_vec())
}

/// A server on a free loopback port; what it saw can be asked for.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `reply` is called with each request and the number of requests seen before it.
    pub fn start(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), seen.clone());
        // The thread sleeps in accept until the test process ends.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (reply, log) = (reply.clone(), log.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &*reply, &log);
                });
            }
        });
        Server { address, seen }
    }

    /// All requests so far; TLS attempts don't count.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A reference to an image in here.
    pub fn image(&self, name: &str) -> oci::Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

type Replier = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

fn serve(stream: TcpStream, reply: &Replier, log: &Mutex<Vec<Seen>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    // A TLS hello begins with 22: this server is plain, and says so as Go's does.
    if reader.fill_buf()?.first() == Some(&22) {
        return writer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n");
    }
    while let Some(seen) = read_request(&mut reader)? {
        let count = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        match reply(&seen, count) {
            Reply::Answer(mut head, body) => {
                if !head.to_lowercase().contains("content-length") {
                    head += &format!("Content-Length: {}\r\n", body.len());
                }
                writer.write_all(format!("{head}\r\n").as_bytes())?;
                if seen.method != "HEAD" {
                    writer.write_all(&body)?;
                }
            }
            Reply::Bytes(bytes) => return writer.write_all(&bytes),
            Reply::Drip(bytes, pause) => {
                for byte in bytes {
                    writer.write_all(&[byte])?;
                    std::thread::sleep(pause);
                }
                return Ok(());
            }
            Reply::Silence => {
                let _ = reader.read(&mut [0]);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Seen { method, target, headers, body }))
}
