//! What a step's result depends on, as data: hashed it is the key of the cache, compared with the last build's it says
//! why there was no hit.

use oci::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Listings longer than this are not kept for explanations.
const MAX_EXPLAINED_FILES: usize = 5_000;

/// Everything a step's result depends on, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ingredients {
    list: Vec<(String, String)>,
    /// The files behind a `source` ingredient: explanation only, the ingredient holds their digest.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl Ingredients {
    /// Those of an operation on top of some layers.
    pub(crate) fn new(operation: &str, parents: &[Digest]) -> Ingredients {
        let chain: Vec<&str> = parents.iter().map(Digest::as_str).collect();
        let mut ingredients = Ingredients::default();
        ingredients.add("operation", operation);
        ingredients.add("parent", Digest::sha256(chain.join("\n")).to_string());
        ingredients
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.list.push((name.into(), value.into()));
    }

    /// Notes one file behind a source, for [`Ingredients::explain`].
    pub(crate) fn note_file(&mut self, path: String, digest: &str) {
        if self.files.len() < MAX_EXPLAINED_FILES {
            self.files.insert(path, digest.to_owned());
        }
    }

    /// What the cache is asked for.
    pub(crate) fn key(&self) -> String {
        let mut hasher = oci::Hasher::sha256();
        for (name, value) in &self.list {
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        format!("step:{}", hasher.finish().hex())
    }

    /// Why `self` is not what `before` was; None where that is an earlier step's doing.
    pub(crate) fn explain(&self, before: &Ingredients) -> Option<String> {
        let old: BTreeMap<&str, &str> = before.list.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let new: BTreeMap<&str, &str> = self.list.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if old.get("operation") != new.get("operation") {
            return Some("the instruction changed".to_owned());
        }
        let mut reasons = Vec::new();
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let (was, is) = (old.get(name).copied(), new.get(name).copied());
            if was == is || *name == "parent" {
                continue;
            }
            reasons.push(match name.split_once(':') {
                Some(("env", variable)) => format!("{variable} {} → {}", shown(was), shown(is)),
                Some(("source", source)) => self.explain_files(before, source),
                _ => format!("{name} {} → {}", shown(was), shown(is)),
            });
        }
        match reasons.len() {
            0 if old.get("parent") != new.get("parent") => None,
            0 => Some("its result is no longer there".to_owned()),
            n if n > 3 => Some(format!("{}, and {} more", reasons[..3].join(", "), n - 3)),
            _ => Some(reasons.join(", ")),
        }
    }

    fn explain_files(&self, before: &Ingredients, source: &str) -> String {
        let mut changes = Vec::new();
        for (path, digest) in &self.files {
            match before.files.get(path) {
                None => changes.push(format!("{path} is new")),
                Some(was) if was != digest => changes.push(format!("{path} changed")),
                Some(_) => {}
            }
        }
        changes
            .extend(before.files.keys().filter(|path| !self.files.contains_key(*path)).map(|p| format!("{p} is gone")));
        match changes.len() {
            0 => format!("{source} changed"),
            n if n > 3 => format!("{}, and {} more", changes[..3].join(", "), n - 3),
            _ => changes.join(", "),
        }
    }
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "unset".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) if text.chars().count() > 60 => format!("{}…", text.chars().take(60).collect::<String>()),
        Some(text) => text.to_owned(),
    }
}

/// What a step left, as the cache keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// None: the step changed nothing.
    #[serde(default)]
    pub(crate) diff_id: Option<Digest>,
    /// When it was made, RFC 3339.
    pub(crate) created: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingredients(pairs: &[(&str, &str)], files: &[(&str, &str)]) -> Ingredients {
        let mut made = Ingredients::new("COPY", &[]);
        pairs.iter().for_each(|(name, value)| made.add(*name, *value));
        files.iter().for_each(|(path, digest)| made.note_file((*path).to_owned(), digest));
        made
    }

    #[test]
    fn a_miss_says_why() {
        let base = ingredients(&[("env:V", "1"), ("source:src", "a")], &[("app.py", "1"), ("b", "2")]);
        let explain = |now: &Ingredients| now.explain(&base);
        let changed = ingredients(&[("env:V", "1"), ("source:src", "b")], &[("app.py", "9"), ("b", "2")]);
        assert_eq!(explain(&changed).as_deref(), Some("app.py changed"));
        let changed = ingredients(&[("env:V", "2"), ("source:src", "a")], &[("app.py", "1"), ("b", "2")]);
        assert_eq!(explain(&changed).as_deref(), Some("V 1 → 2"));
        let changed = ingredients(&[("env:V", "1"), ("source:src", "c")], &[("b", "2"), ("c", "3")]);
        assert_eq!(explain(&changed).as_deref(), Some("c is new, app.py is gone"));
        assert_eq!(explain(&base).as_deref(), Some("its result is no longer there"));
    }

    #[test]
    fn keys_know_where_one_value_ends() {
        assert_ne!(ingredients(&[("a", "bc")], &[]).key(), ingredients(&[("ab", "c")], &[]).key());
        let (one, two) = (Digest::sha256("1"), Digest::sha256("2"));
        assert_ne!(
            Ingredients::new("RUN", std::slice::from_ref(&one)).key(),
            Ingredients::new("RUN", &[one, two]).key()
        );
    }
}
