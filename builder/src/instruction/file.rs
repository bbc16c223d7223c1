//! COPY and ADD.

use super::flags::Flags;
use super::parse::quoted_words;
use crate::error::BuildError;
use crate::parser::{Heredoc, Node, Source};

/// `COPY|ADD [flags] source… destination`. Texts are unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyInstruction {
    pub(crate) is_add: bool,
    pub(crate) sources: Vec<String>,
    pub(crate) destination: String,
    pub(crate) heredocs: Vec<Heredoc>,
    /// A stage's name or index, or an image.
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) parents: bool,
    pub(crate) link: bool,
    /// ADD: whether archives are unpacked; none is the default, yes for local ones.
    pub(crate) unpack: Option<bool>,
    pub(crate) checksum: Option<String>,
    /// ADD of a git repository: `.git` too.
    pub(crate) keep_git_dir: Option<bool>,
}

pub(super) fn parse(node: &Node, source: &Source, escape: char, is_add: bool) -> Result<CopyInstruction, BuildError> {
    let mut flags = Flags::new(node, source);
    let chown = flags.one("chown")?;
    let chmod = flags.one("chmod")?;
    let link = flags.switch("link")?.unwrap_or(false);
    let exclude = flags.many("exclude")?;
    let (mut from, mut parents, mut unpack, mut checksum, mut keep_git_dir) = (None, false, None, None, None);
    if is_add {
        unpack = flags.switch("unpack")?;
        checksum = flags.one("checksum")?;
        keep_git_dir = flags.switch("keep-git-dir")?;
    } else {
        from = flags.one("from")?;
        parents = flags.switch("parents")?.unwrap_or(false);
    }
    flags.finish()?;
    if let Some(text) = from.as_deref().filter(|from| from.contains('$')) {
        let hint = "write FROM $IMAGE AS name, and --from=name".to_owned();
        return Err(source.error_with_hint(node.span, format!("--from={text} cannot hold a variable"), Some(hint)));
    }
    let mut words: Vec<String> = match &node.json {
        Some(list) => list.clone(),
        // A heredoc's delimiter may be quoted.
        None if !node.heredocs.is_empty() => quoted_words(&node.arguments, escape),
        None => node.arguments.split_whitespace().map(str::to_owned).collect(),
    };
    let keyword = if is_add { "ADD" } else { "COPY" };
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
        source.error(node.span, format!("{keyword} requires at least two arguments, a source and a destination"))
    })?;
    Ok(CopyInstruction {
        is_add,
        sources: words,
        destination,
        heredocs: node.heredocs.clone(),
        from,
        chown,
        chmod,
        exclude,
        parents,
        link,
        unpack,
        checksum,
        keep_git_dir,
    })
}

/// A parsed `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// The bits themselves.
    Octal(u32),
    /// `u+rwX,go-w`: clauses applied in order.
    Symbolic(Vec<Clause>),
}

/// `u+rX`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Mask of the bits it speaks of: u 04700, g 02070, o 01007.
    who: u32,
    operator: char,
    /// The bits for everyone, to be masked by `who`.
    bits: u32,
    /// `X`: execute where it is a folder or already executable by someone.
    conditional_execute: bool,
    /// `g=u`: how far right the permissions to copy lie.
    copied: Option<u32>,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Option<Chmod> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777)?;
            return Some(Chmod::Octal(bits));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_clauses(part, &mut clauses)?;
        }
        Some(Chmod::Symbolic(clauses))
    }

    /// The permission bits `mode` becomes.
    pub(crate) fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        match self {
            Chmod::Octal(bits) => *bits,
            Chmod::Symbolic(clauses) => clauses.iter().fold(mode & 0o7777, |mode, c| c.apply(mode, is_folder)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && (is_folder || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(shift) = self.copied {
            bits |= ((mode >> shift) & 0o7) * 0o111;
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !(self.who & 0o777)) | bits,
        }
    }
}

fn parse_clauses(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let operators = part.find(['+', '-', '='])?;
    let (who_text, mut rest) = part.split_at(operators);
    let mut who = 0;
    for c in who_text.chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o7777;
    }
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let (mut bits, mut conditional_execute, mut copied) = (0, false, None);
        for c in rest[1..end].chars() {
            match c {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                'X' => conditional_execute = true,
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                'u' => copied = Some(6),
                'g' => copied = Some(3),
                'o' => copied = Some(0),
                _ => return None,
            }
        }
        clauses.push(Clause { who, operator, bits, conditional_execute, copied });
        rest = &rest[end..];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for (text, mode, is_folder, expected) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o600, false, 0o644),
            ("4755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rw,go=r", 0o777, false, 0o644),
            ("a+rX", 0o600, false, 0o644),
            ("a+rX", 0o700, false, 0o755),
            ("a+rX", 0o600, true, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("u+r-w", 0o200, false, 0o400),
            ("g=u", 0o750, false, 0o770),
            ("o+g", 0o654, false, 0o655),
            ("u+x,g=u,o-r", 0o644, false, 0o770),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, is_folder), expected, "{text}");
        }
        for bad in ["", "999", "77777", "u", "z+x", "u+q"] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
