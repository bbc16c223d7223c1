//! Ignore files: what they hide is decided for any rules and any path, and a rule's own text is no surprise.
#![no_main]

use builder::ignores;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, path) = text.split_once('\u{1}').unwrap_or((text, "a/b"));
    let Some(hidden) = ignores(rules, Path::new(path)) else { return };
    // What a last line `**` adds, it hides; `!**` after that shows all again.
    let all = format!("{rules}\n**");
    let is_path = Path::new(path).components().any(|c| matches!(c, std::path::Component::Normal(_)));
    if is_path {
        assert_eq!(ignores(&all, Path::new(path)), Some(true), "{rules:?} {path:?}");
        assert_eq!(ignores(&format!("{all}\n!**"), Path::new(path)), Some(false), "{rules:?} {path:?}");
    } else {
        assert!(!hidden, "the root is never hidden");
    }
});
