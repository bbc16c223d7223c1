//! Command lines, as an array of words or as one string split as a shell would.

use std::ffi::{OsStr, OsString};

/// What [`crate::TestEnv::ctr`] takes: `"run --rm busybox sh -c 'exit 3'"` or `["run", "--rm", …]`.
pub trait IntoArgs {
    /// The words, unaltered from here on.
    fn into_args(self) -> Vec<OsString>;
}

impl IntoArgs for &str {
    fn into_args(self) -> Vec<OsString> {
        split(self)
    }
}

impl IntoArgs for String {
    fn into_args(self) -> Vec<OsString> {
        split(&self)
    }
}

impl IntoArgs for &String {
    fn into_args(self) -> Vec<OsString> {
        split(self)
    }
}

impl<S: AsRef<OsStr>, const N: usize> IntoArgs for [S; N] {
    fn into_args(self) -> Vec<OsString> {
        self.iter().map(|s| s.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<OsStr>> IntoArgs for &[S] {
    fn into_args(self) -> Vec<OsString> {
        self.iter().map(|s| s.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<OsStr>> IntoArgs for Vec<S> {
    fn into_args(self) -> Vec<OsString> {
        self.as_slice().into_args()
    }
}

/// Words between white space; quotes of both kinds keep it (and, alone, make an empty word). A
/// backslash, a dollar and all else are themselves.
fn split(line: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take().map(OsString::from)),
            None => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is left open in {line:?}");
    words.extend(word.map(OsString::from));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell_does() {
        assert_eq!(split("a  'b c' d\"e f\"g ''"), ["a", "b c", "de fg", ""]);
        assert_eq!(split(" "), Vec::<OsString>::new());
        assert_eq!(split(r#"sh -c 'echo "$HOME"'"#), ["sh", "-c", "echo \"$HOME\""]);
    }
}
