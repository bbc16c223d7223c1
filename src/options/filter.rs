//! `--filter key=value`: the same key several times means any of its values, different keys all.

use crate::error::CliError;
use std::collections::BTreeMap;

/// Parsed filters, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    by_key: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Parses `--filter` values; a key out of `known` only.
    pub(crate) fn parse(list: &[String], known: &[&str]) -> Result<Filters, CliError> {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in list {
            let Some((key, value)) = text.split_once('=') else {
                return Err(CliError::flag(format!("invalid filter {text:?}: expected KEY=VALUE")));
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            if !known.contains(&key.as_str()) {
                return Err(CliError::flag(format!("invalid filter '{key}'"))
                    .with_hint(format!("known filters: {}", known.join(", "))));
            }
            by_key.entry(key).or_default().push(value.to_owned());
        }
        Ok(Filters { by_key })
    }

    /// The values of a key; empty where it was not given.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key was given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Whether the key was not given, or one of its values satisfies `test`.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.by_key.get(key).is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// `label=NAME` or `label=NAME=VALUE`, all of which must hold.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label").iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A key whose value is a truth value.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>, CliError> {
        let Some(text) = self.values(key).last() else { return Ok(None) };
        match text.as_str() {
            "1" | "true" => Ok(Some(true)),
            "0" | "false" => Ok(Some(false)),
            _ => Err(CliError::flag(format!("invalid filter '{key}={text}': expected true or false"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_any_and_different_keys_are_all() -> Result<(), CliError> {
        let list = ["status=exited", "status=created", "label=a", "label=b=1"].map(str::to_owned);
        let filters = Filters::parse(&list, &["status", "label"])?;
        assert!(filters.any("status", |v| v == "created"));
        assert!(!filters.any("status", |v| v == "running"));
        assert!(filters.any("name", |_| false));
        let labels = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert!(filters.labels(&labels(&[("a", ""), ("b", "1")])));
        assert!(!filters.labels(&labels(&[("a", ""), ("b", "2")])));
        assert!(Filters::parse(&["nope=1".to_owned()], &["status"]).is_err());
        assert!(Filters::parse(&["status".to_owned()], &["status"]).is_err());
        Ok(())
    }
}
