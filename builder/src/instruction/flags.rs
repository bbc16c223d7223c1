//! An instruction's `--flags`: taken one by one, the rest is an error with a suggestion.

use super::suggest::nearest;
use crate::error::BuildError;
use crate::parser::{Flag, Node, Source};

/// The flags of one instruction that are not yet taken.
pub(super) struct Flags<'a> {
    node: &'a Node,
    source: &'a Source,
    left: Vec<&'a Flag>,
    known: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    pub(super) fn new(node: &'a Node, source: &'a Source) -> Flags<'a> {
        Flags { node, source, left: node.flags.iter().collect(), known: Vec::new() }
    }

    /// All values of a flag that may be repeated.
    pub(super) fn many(&mut self, name: &'static str) -> Result<Vec<String>, BuildError> {
        self.known.push(name);
        let (found, left) = std::mem::take(&mut self.left).into_iter().partition(|flag: &&Flag| flag.name == name);
        self.left = left;
        let found: Vec<&Flag> = found;
        let value = |flag: &Flag| {
            flag.value.clone().ok_or_else(|| self.source.error(self.node.span, format!("flag --{name} needs a value")))
        };
        found.into_iter().map(value).collect()
    }

    /// The value of a flag that may be given once.
    pub(super) fn one(&mut self, name: &'static str) -> Result<Option<String>, BuildError> {
        let mut values = self.many(name)?;
        if values.len() > 1 {
            return Err(self.source.error(self.node.span, format!("flag --{name} is given more than once")));
        }
        Ok(values.pop())
    }

    /// A flag that is there or not, or `=true`, `=false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, BuildError> {
        self.known.push(name);
        let mut value = None;
        let node = self.node;
        self.left.retain(|flag| {
            if flag.name == name {
                value = Some(flag.value.as_deref().unwrap_or("true"));
            }
            flag.name != name
        });
        value
            .map(|text| {
                parse_bool(text).ok_or_else(|| {
                    self.source.error(node.span, format!("flag --{name}: {text:?} is neither true nor false"))
                })
            })
            .transpose()
    }

    /// No other flag may be left.
    pub(super) fn finish(self) -> Result<(), BuildError> {
        let Some(flag) = self.left.first() else { return Ok(()) };
        let keyword = self.node.keyword.to_uppercase();
        let hint = match nearest(&flag.name, self.known.iter().copied()) {
            Some(near) => Some(format!("did you mean --{near}?")),
            None if self.known.is_empty() => Some(format!("{keyword} takes no flags")),
            None => Some(format!("{keyword} knows --{}", self.known.join(", --"))),
        };
        Err(self.source.error_with_hint(self.node.span, format!("unknown flag --{} of {keyword}", flag.name), hint))
    }
}

/// Go's ParseBool.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
