//! What systemd, or whoever sits at its socket, may answer: no length is believed, and nothing read lies outside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::systemd::message::{Incoming, PREFIX_BYTES, decode, length};

fuzz_target!(|data: &[u8]| {
    // A whole message of any content: the lengths of the prefix are made to fit, which chance would not do.
    let mut whole = data.to_vec();
    if let Some(prefix) = whole.first_chunk_mut::<PREFIX_BYTES>() {
        (prefix[0], prefix[3]) = (b'l', 1);
        let fields = usize::from(prefix[12]).min(data.len() - PREFIX_BYTES);
        let body = data.len().saturating_sub((PREFIX_BYTES + fields).next_multiple_of(8));
        prefix[4..8].copy_from_slice(&u32::try_from(body).unwrap_or(0).to_le_bytes());
        prefix[12..].copy_from_slice(&u32::try_from(fields).unwrap_or(0).to_le_bytes());
        let _bounded = length(prefix);
    }
    for bytes in [data, &whole] {
        match decode(bytes) {
            Ok(Incoming::Return { texts, .. }) => assert!(texts.iter().map(String::len).sum::<usize>() < bytes.len()),
            Ok(Incoming::Error { name, message, .. }) => assert!(name.len() + message.len() < bytes.len()),
            Ok(Incoming::JobRemoved { job, result }) => assert!(job.len() + result.len() < bytes.len()),
            Ok(Incoming::UnitRemoved { unit }) => assert!(unit.len() < bytes.len()),
            Ok(Incoming::Other) | Err(_) => {}
        }
    }
});
