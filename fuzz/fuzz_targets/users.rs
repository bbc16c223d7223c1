//! What users and images give as text: `user[:group]` with the files it is looked up in, signals, references, `-p`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{NameOrId, UserSpec};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\u{1}');
    let (user, passwd, group) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let _any = text.parse::<oci::Reference>();
    let _any = linux::signal::parse(user);
    let Ok(spec) = user.parse::<UserSpec>() else { return };
    // A number is that number and nothing else; a name is never a number.
    let name = user.split_once(':').map_or(user, |(name, _)| name);
    match &spec.user {
        None => assert!(name.is_empty()),
        Some(NameOrId::Id(id)) => assert_eq!(name.trim_start_matches('0').parse().unwrap_or(0), *id),
        Some(NameOrId::Name(found)) => assert!(found == name && !name.bytes().all(|b| b.is_ascii_digit())),
    }
    let Ok(found) = runtime::resolve_user_in(&spec, passwd, group) else { return };
    assert!(found.uid <= i32::MAX.unsigned_abs() && found.gid <= i32::MAX.unsigned_abs());
    assert!(found.additional_gids.len() <= 65_536 && found.additional_gids.is_sorted());
    match &spec.user {
        Some(NameOrId::Id(id)) => assert_eq!(found.uid, *id),
        Some(NameOrId::Name(name)) => assert!(
            passwd.lines().any(|line| line.trim().split(':').next() == Some(name) && line.contains(':')),
            "{name} is in no line"
        ),
        None => assert_eq!(found.uid, 0),
    }
});
