//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// One challenge of a response: the scheme in lower case and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Parses the value of one header, which may hold several challenges. What makes no sense is passed over.
pub(crate) fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return challenges;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                rest = after;
            }
        }
    }
}

/// Splits off the characters that a token may have.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token or a quoted string, and what follows it.
pub(crate) fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(index + 1..).unwrap_or("")),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(value: &str) -> String {
        let one = |c: &Challenge| {
            let parameters: Vec<String> = c.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{}({})", c.scheme, parameters.join(";"))
        };
        parse(value).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_and_several_challenges_are_told_apart() {
        assert_eq!(shown("Basic realm=\"r\""), "basic(realm=r)");
        assert_eq!(
            shown("Bearer realm=\"https://a/t\",service=\"s,t\", scope=\"repository:x:pull,push\""),
            "bearer(realm=https://a/t;scope=repository:x:pull,push;service=s,t)"
        );
        assert_eq!(shown("Negotiate, Basic realm=x, Bearer realm=\"y\""), "negotiate() basic(realm=x) bearer(realm=y)");
        assert_eq!(shown("BASIC REALM = \"a\\\"b\""), "basic(realm=a\"b)");
        assert_eq!(shown("realm=x"), "");
        assert_eq!(shown("Bearer realm=\"unclosed"), "bearer(realm=unclosed)");
    }

    proptest! {
        #[test]
        fn no_header_hangs_or_panics_the_parser(text in "\\PC{0,200}") {
            prop_assert!(parse(&text).len() <= 200);
        }
    }
}
