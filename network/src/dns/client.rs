//! Asking the servers: IPv4 and IPv6 addresses at once, one server after the other, by TCP where an answer is too long.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::config::ResolvConf;
use super::message::{Kind, Query, Reply};
use super::no_such_host;
use crate::random;

const PORT: u16 = 53;
/// When one kind of address is known, so long is the other waited for: servers exist that never answer AAAA.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that are not ours before a server counts as hostile and is left.
const MAX_STRAY: usize = 100;
/// The largest answer by UDP that is read: without EDNS they have 512 bytes.
const MAX_UDP: usize = 4096;
/// Aliases followed by asking again.
const MAX_CHASES: usize = 8;

/// What is known of one name after asking.
enum Outcome {
    Found(Vec<IpAddr>),
    /// The name exists, without addresses.
    NoAddress,
    NoName,
    /// No server has given an answer.
    Silence(String),
}

/// Looks a host up, with the search list.
pub(super) fn lookup(conf: &ResolvConf, host: &str) -> io::Result<Vec<IpAddr>> {
    let servers = conf.servers();
    let mut why = "not a host name";
    for name in conf.candidates(host) {
        match ask_for(conf, &servers, &name)? {
            None => {}
            Some(Outcome::Found(addresses)) => return Ok(addresses),
            Some(Outcome::NoAddress) => why = "it has no address",
            Some(Outcome::NoName) if why == "it has no address" => {}
            Some(Outcome::NoName) => why = "the name servers know no such name",
            Some(Outcome::Silence(last)) => {
                let asked: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
                let text = format!("cannot resolve {host:?}: name server {} failed: {last}", asked.join(", "));
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
        }
    }
    Err(no_such_host(host, why))
}

/// Asks for one full name. None where it cannot be asked for.
fn ask_for(conf: &ResolvConf, servers: &[IpAddr], name: &str) -> io::Result<Option<Outcome>> {
    let mut name = name.to_owned();
    for _ in 0..MAX_CHASES {
        let mut last = String::from("no name server");
        let mut alias = None;
        'asking: for _ in 0..conf.attempts {
            for server in servers {
                let Some(queries) = queries(&name)? else { return Ok(None) };
                match ask(SocketAddr::new(*server, PORT), &queries, conf.timeout) {
                    Ok(replies) => match judge(replies) {
                        Verdict::Outcome(outcome) => return Ok(Some(outcome)),
                        Verdict::Alias(target) => {
                            alias = Some(target);
                            break 'asking;
                        }
                        Verdict::Failed(code) => last = format!("it answered with error {code}"),
                    },
                    Err(error) => last = error.to_string(),
                }
            }
        }
        match alias {
            Some(target) => name = target,
            None => return Ok(Some(Outcome::Silence(last))),
        }
    }
    Ok(Some(Outcome::NoAddress))
}

enum Verdict {
    Outcome(Outcome),
    Alias(String),
    Failed(u16),
}

/// What the answers for both kinds come to. Addresses of the one count even where the other failed.
fn judge(replies: [Option<Reply>; 2]) -> Verdict {
    let mut addresses = Vec::new();
    let (mut no_name, mut alias, mut failed, mut empty) = (false, None, None, false);
    for reply in replies.into_iter().flatten() {
        match reply {
            Reply::Addresses(all) if all.is_empty() => empty = true,
            Reply::Addresses(all) => addresses.extend(all),
            Reply::Alias(target) => alias = Some(target),
            Reply::NoName => no_name = true,
            Reply::Failed(code) => failed = Some(code),
            Reply::Truncated => failed = Some(0),
        }
    }
    match (alias, failed) {
        _ if !addresses.is_empty() => Verdict::Outcome(Outcome::Found(addresses)),
        (Some(target), _) => Verdict::Alias(target),
        (None, Some(code)) => Verdict::Failed(code),
        _ if no_name && !empty => Verdict::Outcome(Outcome::NoName),
        _ => Verdict::Outcome(Outcome::NoAddress),
    }
}

fn queries(name: &str) -> io::Result<Option<[Query; 2]>> {
    let bits = random::u32().map_err(io::Error::other)?.to_ne_bytes();
    let (first, second) = (u16::from_ne_bytes([bits[0], bits[1]]), u16::from_ne_bytes([bits[2], bits[3]]));
    Ok(Query::new(name, Kind::A, first).zip(Query::new(name, Kind::Aaaa, second)).map(|(a, aaaa)| [a, aaaa]))
}

/// Asks one server both questions. A port of its own, random by the kernel, makes forging harder.
fn ask(server: SocketAddr, queries: &[Query; 2], timeout: Duration) -> io::Result<[Option<Reply>; 2]> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    for query in queries {
        socket.send(&query.bytes)?;
    }
    let mut deadline = Instant::now() + timeout;
    let mut replies = [None, None];
    let mut buffer = [0; MAX_UDP];
    for _ in 0..MAX_STRAY {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let answer = buffer.get(..len).unwrap_or_default();
        for (query, reply) in queries.iter().zip(&mut replies) {
            if reply.is_none() {
                *reply = query.reply(answer);
                if *reply == Some(Reply::Truncated) {
                    *reply = Some(ask_by_tcp(server, query, timeout)?);
                }
            }
        }
        match &replies {
            [Some(_), Some(_)] => return Ok(replies),
            [Some(Reply::Addresses(all)), None] | [None, Some(Reply::Addresses(all))] if !all.is_empty() => {
                deadline = deadline.min(Instant::now() + PATIENCE);
            }
            _ => {}
        }
    }
    // "Known, and the other kind did not come" is an answer; silence about a name that may have addresses is none.
    let known = |reply: &Option<Reply>| matches!(reply, Some(Reply::NoName)) || has_addresses(reply);
    if replies.iter().any(known) { Ok(replies) } else { Err(io::Error::new(ErrorKind::TimedOut, "no answer in time")) }
}

fn has_addresses(reply: &Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Addresses(all)) if !all.is_empty())
}

fn ask_by_tcp(server: SocketAddr, query: &Query, timeout: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let len = u16::try_from(query.bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], &query.bytes].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer)?;
    query.reply(&answer).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it answered another question"))
}
