//! A server that answers as badly as it is told to.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came of the body: all of it, unless the server was told to cut it.
    pub body: Vec<u8>,
    /// The body was cut: nobody gets an answer.
    pub cut: bool,
}

impl Seen {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    /// A query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
        Some(decoded(pair.1))
    }
}

/// `%3A` → `:`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).0,
            None => (bytes.push(*first), rest = after).0,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the server does with a request.
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

/// `200` or `404`, headers one a line, and a body.
pub fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    for line in headers.lines().map(str::trim).filter(|l| !l.is_empty()) {
        head += &format!("{line}\r\n");
    }
    Reply::Answer(head, body.as_ref().to_vec())
}

/// A server on a free loopback port; what it saw can be asked for.
pub struct Server {
    /// `127.0.0.1:port`.
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Of a request whose body has not been read: after how many bytes of it the connection breaks.
pub(super) type Cut = Box<dyn Fn(&Seen) -> Option<usize> + Send + Sync>;
pub(super) type Replier = Box<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

/// Of a request whose body has not been read: what it is refused with, unread.
pub(super) type Refuse = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

pub(super) struct Behaviour {
    pub(super) cut: Cut,
    pub(super) refuse: Refuse,
    pub(super) reply: Replier,
}

impl Server {
    /// `reply` is called with each request and the number of requests seen before it.
    pub fn start(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
        Server::run(Behaviour { cut: Box::new(|_| None), refuse: Box::new(|_| None), reply: Box::new(reply) })
    }

    pub(super) fn run(behaviour: Behaviour) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (behaviour, log) = (Arc::new(behaviour), seen.clone());
        // The thread sleeps in accept until the test process ends.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaviour, log) = (behaviour.clone(), log.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &behaviour, &log);
                });
            }
        });
        Server { address, seen }
    }

    /// All requests so far; TLS attempts don't count.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no server thread panics").clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.seen.lock().expect("no server thread panics").clear();
    }

    /// A reference to an image in here.
    #[track_caller]
    pub fn image(&self, name: &str) -> oci::Reference {
        format!("{}/{name}", self.address).parse().expect("a good name")
    }
}

fn serve(stream: TcpStream, behaviour: &Behaviour, log: &Mutex<Vec<Seen>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    // A TLS hello begins with 22: this server is plain, and says so as Go's does.
    if reader.fill_buf()?.first() == Some(&22) {
        return writer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n");
    }
    while let Some(mut seen) = read_head(&mut reader)? {
        let refused = (behaviour.refuse)(&seen);
        if refused.is_none() {
            if seen.header("expect") == "100-continue" {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            read_body(&mut reader, &mut seen, behaviour)?;
        }
        let is_last = refused.is_some();
        let count = {
            let mut log = log.lock().expect("no server thread panics");
            log.push(seen.clone());
            log.len() - 1
        };
        let reply = refused.unwrap_or_else(|| (behaviour.reply)(&seen, count));
        if seen.cut {
            return Ok(());
        }
        match reply {
            Reply::Answer(mut head, body) => {
                if !head.to_lowercase().contains("content-length") {
                    head += &format!("Content-Length: {}\r\n", body.len());
                }
                writer.write_all(format!("{head}\r\n").as_bytes())?;
                if seen.method != "HEAD" {
                    writer.write_all(&body)?;
                }
                if is_last {
                    return Ok(()); // what comes now is a body that nobody wants
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

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
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
    Ok(Some(Seen { method, target, headers, body: Vec::new(), cut: false }))
}

fn read_body(reader: &mut BufReader<TcpStream>, seen: &mut Seen, behaviour: &Behaviour) -> io::Result<()> {
    let length = seen.header("content-length").parse().unwrap_or(0);
    let wanted = (behaviour.cut)(seen).filter(|most| *most < length);
    seen.cut = wanted.is_some();
    seen.body = vec![0; wanted.unwrap_or(length)];
    reader.read_exact(&mut seen.body)
}
