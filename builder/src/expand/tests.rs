#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "v" => "value",
        "e" => "",
        "p" => "a/b/c.tar.gz",
        "s" => "two words",
        "x1" => "one",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> String {
    Expander::new('\\', &variables).word(text).unwrap_or_else(|e| format!("error: {e}"))
}

#[test]
fn every_form_of_substitution() {
    for (text, expected) in [
        ("", ""),
        ("plain text", "plain text"),
        ("$v", "value"),
        ("${v}x", "valuex"),
        ("$vx", ""),
        ("$x1-$v", "one-value"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1", ""),
        ("\\$v", "$v"),
        ("'$v'", "$v"),
        ("\"$v\"", "value"),
        ("\"\\$v \\\" \\x\"", "$v \" \\x"),
        ("a\\ b", "a b"),
        ("'a'\"b\"c", "abc"),
        ("${v:-w}", "value"),
        ("${u:-w}", "w"),
        ("${e:-w}", "w"),
        ("${e-w}", ""),
        ("${u-w}", "w"),
        ("${u:-}", ""),
        ("${v:+w}", "w"),
        ("${e:+w}", ""),
        ("${e+w}", "w"),
        ("${u+w}", ""),
        ("${v:?no}", "value"),
        ("${v?no}", "value"),
        ("${e?no}", ""),
        ("${u:-${v}}", "value"),
        ("${u:-$v-${e:-d}}", "value-d"),
        ("${u:-\"a b\"}", "a b"),
        ("${p#*/}", "b/c.tar.gz"),
        ("${p##*/}", "c.tar.gz"),
        ("${p%.*}", "a/b/c.tar"),
        ("${p%%.*}", "a/b/c"),
        ("${p#nope}", "a/b/c.tar.gz"),
        ("${v#va?}", "ue"),
        ("${p/\\//-}", "a-b/c.tar.gz"),
        ("${p//\\//-}", "a-b-c.tar.gz"),
        ("${p//./}", "a/b/ctargz"),
        ("${p/b}", "a//c.tar.gz"),
        ("${v/a*u/X}", "vXe"),
        ("${v/$x1/}", "value"),
        ("${v/value/$x1}", "one"),
        ("${u:?gone}", "error: u: gone"),
        ("${u?}", "error: u: is not allowed to be unset"),
        ("${e:?empty}", "error: e: empty"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
    for bad in ["${v", "${v:", "${}", "${v:x}", "${v!}", "${v:-a", "'a", "\"a", "${v#a", "${v/a/b"] {
        assert!(word(bad).starts_with("error: "), "{bad}: {}", word(bad));
    }
}

#[test]
fn words_split_at_white_space_that_no_quotes_hold() {
    let words = |text: &str| Expander::new('\\', &variables).words(text).unwrap();
    assert_eq!(words("a  b"), ["a", "b"]);
    assert_eq!(words("'a b' \"c d\" e\\ f"), ["a b", "c d", "e f"]);
    assert_eq!(words("$s"), ["two", "words"]);
    assert_eq!(words("\"$s\""), ["two words"]);
    assert_eq!(words("x$s y"), ["xtwo", "words", "y"]);
    assert_eq!(words("\"\" $u"), [""]);
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    let body = Expander::new('\\', &variables).keeping_quotes();
    assert_eq!(body.word("say \"$v\" '$v' \\$v \\n\n").unwrap(), "say \"value\" 'value' $v \\n\n");
    assert_eq!(Expander::new('`', &variables).word("`$v $v\\").unwrap(), "$v value\\");
    assert_eq!(Expander::new('\\', &variables).keeping_unset().word("$u ${u} $v").unwrap(), "$u ${u} value");
}

#[test]
fn unset_variables_are_told_once_they_matter() {
    let expander = Expander::new('\\', &variables);
    expander.word("$a ${b:-x} ${v:-$c} ${d:-$f}").unwrap();
    assert_eq!(expander.unset().into_iter().collect::<Vec<_>>(), ["a", "f"]);
}

#[test]
fn what_would_grow_without_end_is_an_error() {
    let big = |_: &str| Some("x".repeat(600 << 10));
    assert_eq!(Expander::new('\\', &big).word("$a$a"), Err(ExpandError::TooLong));
    let deep = "${a:-".repeat(80);
    assert_eq!(Expander::new('\\', &|_| None).word(&deep), Err(ExpandError::TooDeep));
}

proptest! {
    #[test]
    fn expanding_never_panics(text in "([$]\\{?[a-z]?[:#%/+?-]{0,2}|[ -~]|\\PC){0,60}") {
        let _ = Expander::new('\\', &variables).word(&text);
        let _ = Expander::new('`', &variables).words(&text);
    }
}
