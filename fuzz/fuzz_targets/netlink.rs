//! Netlink framing both ways: what is built must be read back as it was put in, or be refused; what is received may be anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linux::netlink::{Message, answers, attribute, attributes, text};

/// nlmsghdr.
const HEADER: usize = 16;

fn decode(bytes: &[u8]) {
    for answer in answers(bytes) {
        let Ok(answer) = answer else { return };
        assert!(answer.payload.len() + HEADER <= bytes.len());
        for (kind, content) in attributes(answer.payload) {
            assert!(kind <= 0x3fff && content.len() <= answer.payload.len());
            assert!(attribute(answer.payload, kind).is_some());
            let _any = text(content);
            attributes(content).for_each(drop);
        }
    }
}

/// Each attribute: its type, its length (some of them beyond what 16 bits hold), whether it is nested.
fn encode(mut data: &[u8]) {
    let (mut message, mut put) = (Message::new(1, 0, &[]), Vec::new());
    while let [kind, low, high, flag, rest @ ..] = data {
        let (kind, length) = (u16::from(*kind), usize::from(u16::from_le_bytes([*low, *high])));
        let length = if flag & 1 == 0 { length % 64 } else { length.max(0xff00) };
        let mut content = vec![*low; length];
        let same = length.min(rest.len());
        content[..same].copy_from_slice(&rest[..same]);
        if flag & 2 == 0 {
            message.put(kind, &content);
        } else {
            message.nest(kind, |inner| {
                inner.put(kind, &content);
                inner.nest(kind, |inner| {
                    inner.put_str(1, "x").put(2, &content);
                });
            });
        }
        put.push((kind, content, flag & 2 != 0));
        data = rest;
        if put.len() == 16 {
            break;
        }
    }
    let mut bytes = Vec::new();
    if message.encode(7, &mut bytes).is_err() {
        assert!(put.iter().any(|(_, content, _)| content.len() > 0x3000), "refused without need");
        return;
    }
    let read: Vec<_> = answers(&bytes).collect();
    let [Ok(answer)] = read.as_slice() else { panic!("one message was put in: {read:?}") };
    assert_eq!((answer.sequence, answer.payload.len() + HEADER), (7, bytes.len()));
    let found: Vec<_> = attributes(answer.payload).collect();
    assert_eq!(found.len(), put.len());
    for ((kind, content, nested), (found_kind, found_content)) in put.iter().zip(&found) {
        assert_eq!(kind, found_kind);
        assert_eq!(
            if *nested { attribute(found_content, *kind) } else { Some(*found_content) },
            Some(content.as_slice())
        );
    }
}

fuzz_target!(|data: &[u8]| {
    decode(data);
    encode(data);
});
