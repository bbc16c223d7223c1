//! Physical lines → logical lines: comments and blank lines dropped, continuations joined, heredoc bodies read.

use super::{Heredoc, Source, Span};
use crate::error::BuildError;
use crate::event::Warning;

/// A cursor over a recipe's lines.
pub(super) struct Lines<'a> {
    source: &'a Source,
    escape: char,
    next: usize,
    warnings: Vec<Warning>,
}

/// An instruction's text with its continuation lines joined.
pub(super) struct Logical {
    pub(super) text: String,
    pub(super) span: Span,
}

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a Source, escape: char) -> Lines<'a> {
        Lines { source, escape, next: 0, warnings: Vec::new() }
    }

    /// The number of the line read last.
    pub(super) fn line_number(&self) -> usize {
        self.next
    }

    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    fn take(&mut self) -> Option<&'a str> {
        let line = self.source.lines.get(self.next)?;
        self.next += 1;
        Some(line)
    }

    /// The next instruction; None at the end.
    pub(super) fn next_logical(&mut self) -> Option<Logical> {
        let first = loop {
            let line = self.take()?.trim();
            if !line.is_empty() && !line.starts_with('#') {
                break line;
            }
        };
        let mut span = Span { first: self.next, last: self.next };
        let (mut text, mut open) = self.continued(first);
        while open {
            let Some(line) = self.take() else { break };
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                let at = Span { first: self.next, last: self.next };
                let warning = self.source.warning("NoEmptyContinuation", at, "Empty continuation line");
                self.warnings.push(warning);
                continue;
            }
            let (part, more) = self.continued(line);
            text.push_str(&part);
            open = more;
            span.last = self.next;
        }
        Some(Logical { text: text.trim().to_owned(), span })
    }

    /// The line without its continuation mark, and whether it had one. A doubled mark is a literal one.
    fn continued(&self, line: &str) -> (String, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest.to_owned(), true),
            _ => (line.to_owned(), false),
        }
    }

    /// Reads the body an announced heredoc is followed by.
    pub(super) fn read_heredoc(&mut self, announced: &Heredoc, span: Span) -> Result<Heredoc, BuildError> {
        let mut content = String::new();
        while let Some(line) = self.take() {
            let line = if announced.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == announced.name {
                return Ok(Heredoc { content, ..announced.clone() });
            }
            content.push_str(line);
            content.push('\n');
        }
        let hint = format!("put a line that is only {:?} after its text", announced.name);
        let message = format!("unterminated heredoc <<{}", announced.name);
        Err(self.source.error_with_hint(span, message, Some(hint)))
    }
}
