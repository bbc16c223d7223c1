//! DNS messages (RFC 1035): one question out, an answer of a stranger in.
//!
//! Everything in an answer is hostile until checked: it must repeat the question, names are bounded in length and jumps
//! (each backwards), counts are bounded by the bytes that are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const FLAG_ANSWER: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSE: u16 = 0x0100;
const OPCODE: u16 = 0x7800;
const CODE: u16 = 0x000f;

const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// A name of 255 bytes has at most 127 labels, each of which might be behind a jump.
const MAX_JUMPS: usize = 128;
/// More aliases in a row are a loop or a prank.
const MAX_ALIASES: usize = 16;
/// More addresses help nobody.
const MAX_ADDRESSES: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An IPv4 address.
    A = 1,
    /// An IPv6 address.
    Aaaa = 28,
}

/// A query as bytes, with what is needed to recognise its answer.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) bytes: Vec<u8>,
    id: u16,
    name: String,
    kind: Kind,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The addresses of the name, or of the one that it is an alias of. Empty: the name has none of this kind.
    Addresses(Vec<IpAddr>),
    /// An alias whose own addresses are not in the answer.
    Alias(String),
    /// There is no such name.
    NoName,
    /// To be asked again by TCP.
    Truncated,
    /// The server cannot or will not (its code).
    Failed(u16),
}

impl Query {
    /// None where the name is not one that DNS could have.
    pub(crate) fn new(name: &str, kind: Kind, id: u16) -> Option<Query> {
        let mut bytes = Vec::with_capacity(HEADER + name.len() + 6);
        for field in [id, FLAG_RECURSE, 1, 0, 0, 0] {
            bytes.extend(field.to_be_bytes());
        }
        for label in name.split('.') {
            let len = u8::try_from(label.len()).ok().filter(|len| (1..=MAX_LABEL).contains(&usize::from(*len)))?;
            // Spaces, controls and non-ASCII are no host names; an alias with a dot inside a label would be another name.
            if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            bytes.push(len);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        if bytes.len() - HEADER > MAX_NAME {
            return None;
        }
        for field in [kind as u16, CLASS_IN] {
            bytes.extend(field.to_be_bytes());
        }
        Some(Query { bytes, id, name: name.to_ascii_lowercase(), kind })
    }

    /// Reads an answer; None where it is none to this query (forged, late or broken).
    pub(crate) fn reply(&self, answer: &[u8]) -> Option<Reply> {
        let field = |index: usize| u16_at(answer, index * 2);
        let flags = field(1)?;
        if field(0)? != self.id || flags & FLAG_ANSWER == 0 || flags & OPCODE != 0 || field(2)? != 1 {
            return None;
        }
        let (name, at) = read_name(answer, HEADER)?;
        if name != self.name || u16_at(answer, at)? != self.kind as u16 || u16_at(answer, at + 2)? != CLASS_IN {
            return None;
        }
        if flags & FLAG_TRUNCATED != 0 {
            return Some(Reply::Truncated);
        }
        match flags & CODE {
            0 => self.records(answer, at + 4, field(3)?),
            3 => Some(Reply::NoName),
            code => Some(Reply::Failed(code)),
        }
    }

    fn records(&self, answer: &[u8], mut at: usize, count: u16) -> Option<Reply> {
        let (mut aliases, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (owner, fixed) = read_name(answer, at)?;
            let (kind, class) = (u16_at(answer, fixed)?, u16_at(answer, fixed + 2)?);
            let start = fixed + 10;
            let end = start + usize::from(u16_at(answer, fixed + 8)?);
            let data = answer.get(start..end)?;
            at = end;
            if class != CLASS_IN {
                continue;
            }
            if kind == TYPE_CNAME && aliases.len() < MAX_ALIASES {
                aliases.push((owner, read_name(answer, start)?.0));
            } else if kind == self.kind as u16 && addresses.len() < MAX_ADDRESSES {
                addresses.push((owner, self.address(data)?));
            }
        }
        // Only what hangs on the name that was asked counts: a server may not slip in others.
        let mut name = self.name.clone();
        for _ in 0..=aliases.len() {
            let own: Vec<IpAddr> =
                addresses.iter().filter(|(owner, _)| *owner == name).map(|(_, address)| *address).collect();
            if !own.is_empty() {
                return Some(Reply::Addresses(own));
            }
            match aliases.iter().find(|(owner, _)| *owner == name) {
                Some((_, target)) => name.clone_from(target),
                None if name == self.name => return Some(Reply::Addresses(Vec::new())),
                None => return Some(Reply::Alias(name)),
            }
        }
        Some(Reply::Addresses(Vec::new()))
    }

    fn address(&self, data: &[u8]) -> Option<IpAddr> {
        match self.kind {
            Kind::A => <[u8; 4]>::try_from(data).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
            Kind::Aaaa => <[u8; 16]>::try_from(data).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Reads the name at a place: in lower case with dots, and the place after it.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut after) = (String::new(), start, None);
    for _ in 0..MAX_JUMPS * 2 {
        let len = usize::from(*bytes.get(at)?);
        match len {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..=MAX_LABEL => {
                let label = bytes.get(at + 1..at + 1 + len)?;
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in label {
                    // What could not be asked for is not worth following either.
                    if !byte.is_ascii_graphic() || *byte == b'.' {
                        return None;
                    }
                    name.push(char::from(byte.to_ascii_lowercase()));
                }
                if name.len() > MAX_NAME {
                    return None;
                }
                at += 1 + len;
            }
            0xc0.. => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                after = after.or(Some(at + 2));
                // Backwards only, so no loop is possible.
                at = (target < at).then_some(target)?;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// An answer to `query`: records of (owner, type, data).
    fn answer(query: &Query, code: u16, records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = query.bytes.clone();
        let flags = FLAG_ANSWER | FLAG_RECURSE | code;
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (owner, kind, data) in records {
            bytes.extend(wire(owner));
            for field in [*kind, CLASS_IN, 0, 60, u16::try_from(data.len()).unwrap()] {
                bytes.extend(field.to_be_bytes());
            }
            bytes.extend(data);
        }
        bytes
    }

    fn wire(name: &str) -> Vec<u8> {
        let query = Query::new(name, Kind::A, 0).unwrap();
        query.bytes[HEADER..query.bytes.len() - 4].to_vec()
    }

    #[test]
    fn aliases_are_followed_to_the_addresses() {
        let query = Query::new("Web.Example", Kind::A, 7).unwrap();
        let records = [
            ("web.example", TYPE_CNAME, wire("b.example")),
            ("b.example", TYPE_CNAME, wire("c.example")),
            ("c.example", 1, vec![10, 0, 0, 1]),
            ("evil.example", 1, vec![6, 6, 6, 6]),
            ("c.example", 1, vec![10, 0, 0, 2]),
        ];
        let expected = Reply::Addresses(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]);
        assert_eq!(query.reply(&answer(&query, 0, &records)), Some(expected));
        assert_eq!(query.reply(&answer(&query, 0, &records[..2])), Some(Reply::Alias("c.example".into())));
        assert_eq!(query.reply(&answer(&query, 0, &records[3..4])), Some(Reply::Addresses(vec![])));
        let ring = [("web.example", TYPE_CNAME, wire("b.example")), ("b.example", TYPE_CNAME, wire("web.example"))];
        assert_eq!(query.reply(&answer(&query, 0, &ring)), Some(Reply::Addresses(vec![])));
        assert_eq!(query.reply(&answer(&query, 3, &[])), Some(Reply::NoName));
        assert_eq!(query.reply(&answer(&query, 2, &[])), Some(Reply::Failed(2)));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let query = Query::new("web.example", Kind::A, 7).unwrap();
        for other in [("web.example", Kind::A, 8), ("web.example", Kind::Aaaa, 7), ("wib.example", Kind::A, 7)] {
            let other = Query::new(other.0, other.1, other.2).unwrap();
            assert_eq!(query.reply(&answer(&other, 0, &[])), None);
        }
        assert_eq!(query.reply(&query.bytes), None, "a question is no answer");
    }

    #[test]
    fn names_that_point_at_themselves_end() {
        let query = Query::new("a", Kind::A, 1).unwrap();
        let mut bytes = answer(&query, 0, &[]);
        bytes[7] = 1;
        let at = u16::try_from(bytes.len()).unwrap();
        bytes.extend((0xc000 | at).to_be_bytes());
        bytes.extend([0; 10]);
        assert_eq!(query.reply(&bytes), None);
    }

    #[test]
    fn names_that_dns_cannot_have_are_not_asked() {
        let long = "a".repeat(64);
        let longest = ["a"; 127].join(".");
        for bad in ["", ".", "a..b", "a b", "ä", &long, &format!("{longest}.a"), "a\0"] {
            assert!(Query::new(bad, Kind::A, 1).is_none(), "{bad}");
        }
        assert!(Query::new(&longest, Kind::A, 1).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let query = Query::new("web.example", Kind::A, 7).unwrap();
            let _ = query.reply(&bytes);
            // The same behind a good header and question, where the walk begins.
            let mut good = answer(&query, 0, &[]);
            good[6..8].copy_from_slice(&[0xff, 0xff]);
            good.extend(&bytes);
            if let Some(Reply::Addresses(all)) = query.reply(&good) {
                prop_assert!(all.len() <= MAX_ADDRESSES);
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..120, value: u8) {
            let query = Query::new("web.example", Kind::A, 7).unwrap();
            let records = [("web.example", TYPE_CNAME, wire("b.example")), ("b.example", 1, vec![10, 0, 0, 1])];
            let mut bytes = answer(&query, 0, &records);
            let index = at % bytes.len();
            bytes[index] = value;
            let _ = query.reply(&bytes);
        }
    }
}
