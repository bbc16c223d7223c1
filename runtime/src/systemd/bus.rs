//! The way to systemd: its own socket, which needs no broker, or a message bus it is on.

use super::Manager;
use super::message::{self, Call, Incoming, PREFIX_BYTES, Writer};
use crate::RuntimeError;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one of our requests may take, its job included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long its end may take, of which all that counts can be seen by other means.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
/// The longest line of the greeting.
const MAX_LINE: u64 = 512;
/// Jobs and units remembered that ended before they were asked about: our own are few.
const MAX_ENDED: usize = 64;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const ENDS: [&str; 2] = [
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='UnitRemoved'",
];

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// systemd said no.
    Refused {
        /// The error's name.
        name: String,
        /// What it says.
        message: String,
    },
    /// It could not be asked.
    Broken(RuntimeError),
}

impl From<RuntimeError> for Failed {
    fn from(error: RuntimeError) -> Failed {
        Failed::Broken(error)
    }
}

impl From<Failed> for RuntimeError {
    fn from(failed: Failed) -> RuntimeError {
        match failed {
            Failed::Refused { name, message } => RuntimeError::Systemd(format!("{message} ({name})")),
            Failed::Broken(error) => error,
        }
    }
}

/// A connection.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    serial: u32,
    deadline: Instant,
    /// Jobs that ended, by path, and units that are no more, by name: and how.
    ended: Vec<(String, String)>,
}

impl Bus {
    pub(super) fn connect(manager: &Manager) -> Result<Bus, RuntimeError> {
        let (direct, bus) = manager.sockets();
        let first = match UnixStream::connect(&direct) {
            Ok(stream) => return Bus::greet(stream, direct),
            Err(error) => error,
        };
        // Not root, or a container that was lent the bus alone.
        let Ok(stream) = UnixStream::connect(&bus) else {
            return Err(RuntimeError::file("connect to systemd at", direct, first));
        };
        let mut bus = Bus::greet(stream, bus)?;
        bus.ask(BUS, "/org/freedesktop/DBus", BUS, "Hello", "", Writer::default())?;
        for wanted in ENDS {
            let mut rule = Writer::default();
            rule.text(wanted)?;
            bus.ask(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", rule)?;
        }
        bus.manage("Subscribe", "", Writer::default())?;
        Ok(bus)
    }

    /// Who we are, the other side asks the kernel: a name of ours would be wrong in a user namespace.
    fn greet(stream: UnixStream, path: PathBuf) -> Result<Bus, RuntimeError> {
        let deadline = Instant::now() + PATIENCE;
        let mut bus = Bus { stream: BufReader::new(stream), path, serial: 0, deadline, ended: Vec::new() };
        bus.send(b"\0AUTH EXTERNAL\r\n")?;
        let mut answer = bus.line()?;
        if answer == "DATA" || answer.starts_with("DATA ") {
            bus.send(b"DATA\r\n")?;
            answer = bus.line()?;
        }
        if !answer.starts_with("OK ") {
            return Err(RuntimeError::Systemd(format!("{} does not let this user in: {answer:?}", bus.path.display())));
        }
        bus.send(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// The time left, as the socket's time-out.
    fn tick(&self) -> Result<(), RuntimeError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        let left = Some(left.max(Duration::from_millis(1)));
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(left)
            .and_then(|()| stream.set_write_timeout(left))
            .map_err(|e| self.failed("setsockopt of", e))
    }

    fn failed(&self, operation: &'static str, error: std::io::Error) -> RuntimeError {
        let late = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        if late {
            return RuntimeError::Systemd("no answer in time".to_owned());
        }
        RuntimeError::file(operation, &self.path, error)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.tick()?;
        self.stream.get_mut().write_all(bytes).map_err(|e| self.failed("write to", e))
    }

    fn line(&mut self) -> Result<String, RuntimeError> {
        self.tick()?;
        let mut line = String::new();
        let read = (&mut self.stream).take(MAX_LINE).read_line(&mut line);
        read.map_err(|e| self.failed("read", e))?;
        Ok(line.trim_end().to_owned())
    }

    fn receive(&mut self) -> Result<Incoming, RuntimeError> {
        self.tick()?;
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).map_err(|e| self.failed("read", e))?;
        let mut whole = prefix.to_vec();
        whole.resize(message::length(&prefix)?, 0);
        self.stream.read_exact(&mut whole[PREFIX_BYTES..]).map_err(|e| self.failed("read", e))?;
        message::decode(&whole)
    }

    /// Calls a method of the manager's: the texts of its answer.
    pub(super) fn manage(&mut self, member: &str, signature: &str, body: Writer) -> Result<Vec<String>, Failed> {
        self.ask(SYSTEMD, "/org/freedesktop/systemd1", MANAGER, member, signature, body)
    }

    /// Calls a method of a unit.
    pub(super) fn of_unit(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Vec<String>, Failed> {
        self.ask(SYSTEMD, path, interface, member, signature, body)
    }

    fn ask(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Vec<String>, Failed> {
        self.serial += 1;
        let call = Call { destination, path, interface, member, signature };
        let bytes = call.encode(self.serial, body)?;
        self.send(&bytes)?;
        loop {
            match self.receive()? {
                Incoming::Return { to, texts } if to == self.serial => return Ok(texts),
                Incoming::Error { to, name, message } if to == self.serial => {
                    return Err(Failed::Refused { name, message });
                }
                incoming => self.note(incoming)?,
            }
        }
    }

    /// Others' news come all the time: they must not keep us.
    fn in_time(&self) -> Result<(), RuntimeError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(self.failed("wait for", std::io::ErrorKind::TimedOut.into()))
    }

    fn note(&mut self, incoming: Incoming) -> Result<(), RuntimeError> {
        match incoming {
            Incoming::JobRemoved { job, result } if self.ended.len() < MAX_ENDED => self.ended.push((job, result)),
            Incoming::UnitRemoved { unit } if self.ended.len() < MAX_ENDED => {
                self.ended.push((unit, "done".to_owned()))
            }
            _ => {}
        }
        self.in_time()
    }

    /// What follows is the end of a unit.
    pub(super) fn hurry(&mut self) {
        self.deadline = Instant::now() + PATIENCE_AT_END;
    }

    /// Waits until a job is done, or a unit gone.
    pub(super) fn until_done(&mut self, what: &str, either: &[&str]) -> Result<(), RuntimeError> {
        let result = loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| either.contains(&ended.as_str())) {
                break result.clone();
            }
            self.ended.clear();
            let incoming = self.receive()?;
            self.note(incoming)?;
        };
        match result.as_str() {
            "done" => Ok(()),
            result => Err(RuntimeError::Systemd(format!("{what}: its job ended as {result:?}"))),
        }
    }
}

impl Manager {
    /// The manager's own socket, and the bus it is on.
    fn sockets(&self) -> (PathBuf, PathBuf) {
        match self {
            Manager::System => (PathBuf::from("/run/systemd/private"), PathBuf::from("/run/dbus/system_bus_socket")),
            Manager::User(folder) => (folder.join("systemd/private"), folder.join("bus")),
        }
    }
}
