//! D-Bus messages: the few kinds of value that systemd's manager is spoken to with, and a reader that believes no length.

use crate::RuntimeError;

/// The longest message taken, in bytes. What is waited for here is far shorter.
pub const MAX_BYTES: usize = 1 << 20;
/// A message's part of fixed length, with the length of its header's fields.
pub const PREFIX_BYTES: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;

/// The kinds of message.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// The header's fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

fn wrong(what: &str) -> RuntimeError {
    RuntimeError::Systemd(format!("a message that is none: {what}"))
}

/// A value of a property.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    Signed(i32),
    /// `u`
    Short(u32),
    /// `x`
    LongSigned(i64),
    /// `t`
    Long(u64),
    /// `d`
    Float(f64),
    /// `s`
    Text(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Shorts(Vec<u32>),
    /// `as`
    Texts(Vec<String>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::Signed(_) => "i",
            Value::Short(_) => "u",
            Value::LongSigned(_) => "x",
            Value::Long(_) => "t",
            Value::Float(_) => "d",
            Value::Text(_) => "s",
            Value::Bytes(_) => "ay",
            Value::Shorts(_) => "au",
            Value::Texts(_) => "as",
        }
    }
}

/// A message's body (or header) as it grows. Places count from its start, so a body is written by itself.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn short(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn long(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    fn length(length: usize) -> Result<u32, RuntimeError> {
        u32::try_from(length).ok().filter(|_| length <= MAX_BYTES).ok_or_else(|| wrong("too long"))
    }

    /// A text, or a path of an object.
    pub fn text(&mut self, text: &str) -> Result<&mut Writer, RuntimeError> {
        if text.contains('\0') {
            return Err(wrong("a text with a null byte"));
        }
        self.short(Writer::length(text.len())?);
        self.0.extend(text.as_bytes());
        self.byte(0);
        Ok(self)
    }

    fn signature(&mut self, signature: &str) -> Result<(), RuntimeError> {
        self.byte(u8::try_from(signature.len()).map_err(|_| wrong("a long signature"))?);
        self.0.extend(signature.as_bytes());
        self.byte(0);
        Ok(())
    }

    /// An array: its length does not count the padding before its first element.
    fn array(
        &mut self,
        alignment: usize,
        fill: impl FnOnce(&mut Writer) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        self.short(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self)?;
        let length = Writer::length(self.0.len() - start)?;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// `b`
    pub fn flag(&mut self, value: bool) -> &mut Writer {
        self.short(value.into());
        self
    }

    fn variant(&mut self, value: &Value) -> Result<(), RuntimeError> {
        self.signature(value.signature())?;
        match value {
            Value::Bool(value) => self.short(u32::from(*value)),
            Value::Signed(value) => self.short(value.cast_unsigned()),
            Value::Short(value) => self.short(*value),
            Value::LongSigned(value) => self.long(value.cast_unsigned()),
            Value::Long(value) => self.long(*value),
            Value::Float(value) => self.long(value.to_bits()),
            Value::Text(text) => self.text(text).map(drop)?,
            Value::Bytes(bytes) => self.array(1, |writer| {
                writer.0.extend(bytes);
                Ok(())
            })?,
            Value::Shorts(numbers) => self.array(4, |writer| {
                numbers.iter().for_each(|number| writer.short(*number));
                Ok(())
            })?,
            Value::Texts(texts) => self.array(4, |writer| texts.iter().try_for_each(|t| writer.text(t).map(drop)))?,
        }
        Ok(())
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(String, Value)]) -> Result<&mut Writer, RuntimeError> {
        self.array(8, |writer| {
            properties.iter().try_for_each(|(name, value)| {
                writer.align(8);
                writer.text(name)?.variant(value)
            })
        })?;
        Ok(self)
    }

    /// `a(sa(sv))`, without an element: further units.
    pub fn no_units(&mut self) -> Result<&mut Writer, RuntimeError> {
        self.array(8, |_| Ok(()))?;
        Ok(self)
    }
}

/// A call of a method.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom.
    pub destination: &'a str,
    /// Which object of theirs.
    pub path: &'a str,
    /// Which of its interfaces.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// What the body is made of.
    pub signature: &'a str,
}

impl Call<'_> {
    /// The message.
    pub fn encode(&self, serial: u32, body: Writer) -> Result<Vec<u8>, RuntimeError> {
        let mut message = Writer::default();
        message.0.extend([LITTLE_ENDIAN, CALL, 0, VERSION]);
        message.short(Writer::length(body.0.len())?);
        message.short(serial);
        let fields = [
            (PATH, "o", self.path),
            (INTERFACE, "s", self.interface),
            (MEMBER, "s", self.member),
            (DESTINATION, "s", self.destination),
        ];
        message.array(8, |writer| {
            for (field, kind, value) in fields {
                writer.align(8);
                writer.byte(field);
                writer.signature(kind)?;
                writer.text(value)?;
            }
            if !self.signature.is_empty() {
                writer.align(8);
                writer.byte(SIGNATURE);
                writer.signature("g")?;
                writer.signature(self.signature)?;
            }
            Ok(())
        })?;
        message.align(8);
        message.0.extend(body.0);
        Ok(message.0)
    }
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to the call of this serial.
    Return {
        /// Which call.
        to: u32,
        /// The texts and paths that it begins with; of a variant the text in it.
        texts: Vec<String>,
    },
    /// The call of this serial failed.
    Error {
        /// Which call.
        to: u32,
        /// The error's name: dotted words.
        name: String,
        /// What it says.
        message: String,
    },
    /// `JobRemoved`: a job ended.
    JobRemoved {
        /// The job's path.
        job: String,
        /// How: "done", or why not.
        result: String,
    },
    /// `UnitRemoved`: a unit is forgotten.
    UnitRemoved {
        /// Its name.
        unit: String,
    },
    /// What nobody here waits for.
    Other,
}

/// How long the message is that begins so.
pub fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, RuntimeError> {
    let mut reader = Reader { bytes: prefix, at: 0 };
    let (order, _kind, _flags, version) = (reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?);
    if order != LITTLE_ENDIAN || version != VERSION {
        return Err(wrong("another byte order or version"));
    }
    let (body, _serial, fields) = (reader.size()?, reader.short()?, reader.size()?);
    let whole = (PREFIX_BYTES + fields).next_multiple_of(8) + body;
    if whole > MAX_BYTES { Err(wrong("too long")) } else { Ok(whole) }
}

/// Reads a whole message.
pub fn decode(bytes: &[u8]) -> Result<Incoming, RuntimeError> {
    let prefix = bytes.first_chunk().ok_or_else(|| wrong("too short"))?;
    if length(prefix)? != bytes.len() {
        return Err(wrong("its length is another"));
    }
    let mut reader = Reader { bytes, at: 12 };
    let fields_end = PREFIX_BYTES + reader.size()?;
    let (mut to, mut names, mut signature) = (None, [""; 5], "");
    while reader.at < fields_end {
        reader.align(8)?;
        let (field, kind) = (reader.byte()?, reader.signature()?);
        match (field, kind) {
            (REPLY_SERIAL, "u") => to = Some(reader.short()?),
            (SIGNATURE, "g") => signature = reader.signature()?,
            (PATH | INTERFACE | MEMBER | ERROR_NAME, "s" | "o") => names[usize::from(field)] = reader.text()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.short()?),
            _ => return Err(wrong("a header's field of no known type")),
        }
    }
    reader.align(8)?;
    let mut body = Reader { bytes: reader.bytes.get(reader.at..).unwrap_or_default(), at: 0 };
    let kind = bytes.get(1).copied().unwrap_or_default();
    let to = || to.ok_or_else(|| wrong("an answer to nothing"));
    Ok(match kind {
        RETURN => Incoming::Return { to: to()?, texts: body.texts(signature)? },
        ERROR => Incoming::Error {
            to: to()?,
            name: names[usize::from(ERROR_NAME)].to_owned(),
            message: body.texts(signature)?.into_iter().next().unwrap_or_default(),
        },
        SIGNAL if names[usize::from(MEMBER)] == "JobRemoved" && signature == "uoss" => {
            body.short()?;
            let (job, _unit, result) = (body.text()?, body.text()?, body.text()?);
            Incoming::JobRemoved { job: job.to_owned(), result: result.to_owned() }
        }
        SIGNAL if names[usize::from(MEMBER)] == "UnitRemoved" && signature == "so" => {
            Incoming::UnitRemoved { unit: body.text()?.to_owned() }
        }
        _ => Incoming::Other,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RuntimeError> {
        let end = self.at.checked_add(length).ok_or_else(|| wrong("too long"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| wrong("cut off"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), RuntimeError> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Result<u8, RuntimeError> {
        self.take(1)?.first().copied().ok_or_else(|| wrong("cut off"))
    }

    fn short(&mut self) -> Result<u32, RuntimeError> {
        self.align(4)?;
        let bytes = self.take(4)?.first_chunk().ok_or_else(|| wrong("cut off"))?;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// A length, of bytes.
    fn size(&mut self) -> Result<usize, RuntimeError> {
        let size = usize::try_from(self.short()?).unwrap_or(usize::MAX);
        if size > MAX_BYTES { Err(wrong("too long")) } else { Ok(size) }
    }

    fn string(&mut self, length: usize) -> Result<&'a str, RuntimeError> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| wrong("a text that is not UTF-8"))?;
        if self.byte()? == 0 { Ok(text) } else { Err(wrong("a text without an end")) }
    }

    fn text(&mut self) -> Result<&'a str, RuntimeError> {
        let length = self.size()?;
        self.string(length)
    }

    fn signature(&mut self) -> Result<&'a str, RuntimeError> {
        let length = self.byte()?;
        self.string(length.into())
    }

    /// The texts that a body begins with.
    fn texts(&mut self, signature: &str) -> Result<Vec<String>, RuntimeError> {
        let mut texts = Vec::new();
        for kind in signature.chars() {
            match kind {
                's' | 'o' => texts.push(self.text()?.to_owned()),
                'v' if self.signature()? == "s" => texts.push(self.text()?.to_owned()),
                _ => break,
            }
        }
        Ok(texts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL_OF: Call<'static> =
        Call { destination: "org.a", path: "/o", interface: "org.a.I", member: "M", signature: "s" };

    #[test]
    fn a_call_is_as_others_write_it() {
        let mut body = Writer::default();
        body.text("x").unwrap();
        let message = CALL_OF.encode(7, body).unwrap();
        // The padding after the last field belongs to the header, not to the array of 71 bytes.
        let mut wanted = vec![b'l', 1, 0, 1, 6, 0, 0, 0, 7, 0, 0, 0, 71, 0, 0, 0];
        wanted.extend(b"\x01\x01o\0\x02\0\0\0/o\0\0\0\0\0\0");
        wanted.extend(b"\x02\x01s\0\x07\0\0\0org.a.I\0");
        wanted.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
        wanted.extend(b"\x06\x01s\0\x05\0\0\0org.a\0\0\0");
        wanted.extend(b"\x08\x01g\0\x01s\0\0");
        wanted.extend(b"\x01\0\0\0x\0");
        assert_eq!(message, wanted);
        assert_eq!(length(message.first_chunk().unwrap()).unwrap(), message.len());
        assert_eq!(decode(&message).unwrap(), Incoming::Other);
    }

    /// A message of a kind, with an answered serial and a body.
    fn message(kind: u8, member: &str, signature: &str, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut body = Writer::default();
        fill(&mut body);
        let mut bytes = Call { member, signature, ..CALL_OF }.encode(9, body).unwrap();
        bytes[1] = kind;
        // The interface's field becomes the serial: 2 and 5 are of one length with a padded number.
        if kind != SIGNAL {
            let at = 16 + 16;
            bytes[at..at + 16].copy_from_slice(b"\x05\x01u\0\x09\0\0\0\x04\x01s\0\0\0\0\0");
            bytes.splice(at + 16..at + 16, *b"\0\0\0\0\0\0\0\0");
            bytes[12] += 8;
        }
        bytes
    }

    #[test]
    fn answers_are_read() {
        let found = decode(&message(RETURN, "M", "o", |body| _ = body.text("/job/1").unwrap())).unwrap();
        assert_eq!(found, Incoming::Return { to: 9, texts: vec!["/job/1".to_owned()] });
        let found =
            decode(&message(RETURN, "M", "v", |body| body.variant(&Value::Text("/x".into())).unwrap())).unwrap();
        assert_eq!(found, Incoming::Return { to: 9, texts: vec!["/x".to_owned()] });
        let found = decode(&message(ERROR, "M", "s", |body| _ = body.text("why").unwrap())).unwrap();
        assert_eq!(found, Incoming::Error { to: 9, name: String::new(), message: "why".to_owned() });
        let job = |body: &mut Writer| {
            body.short(3);
            body.text("/job/1").unwrap().text("x.scope").unwrap().text("done").unwrap();
        };
        let found = decode(&message(SIGNAL, "JobRemoved", "uoss", job)).unwrap();
        assert_eq!(found, Incoming::JobRemoved { job: "/job/1".to_owned(), result: "done".to_owned() });
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_wild(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = decode(&bytes);
        }

        #[test]
        fn nor_those_of_a_message_with_a_fault(at in 0usize..200, value in any::<u8>(), cut in 0usize..200) {
            let mut bytes = message(RETURN, "M", "sv", |body| {
                body.text("one").unwrap().variant(&Value::Text("two".into())).unwrap();
            });
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = value;
            let _read = (decode(&bytes), decode(&bytes[cut..]), decode(&bytes[..cut]));
        }
    }
}
