//! Image names: what is taken for one comes back the same from each form it is shown in, and is a path only of harmless parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    for shown in [reference.to_string(), reference.familiar()] {
        let again: Reference = shown.parse().unwrap_or_else(|e| panic!("{shown:?} of {text:?}: {e}"));
        assert_eq!(again, reference, "{shown:?} of {text:?}");
    }
    assert!(!reference.path().split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
    assert!(reference.tag().is_none_or(|tag| tag.len() <= 128 && !tag.contains('/')), "{text:?}");
    assert!(!reference.domain().contains('/'), "{text:?}");
});
