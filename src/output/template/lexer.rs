//! A template's text as literal text and the words within `{{ }}`.

use super::TemplateError;

/// One piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Token>),
}

/// One word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.A.B` → `["A", "B"]`; `.` alone is empty. The flag: it follows the token before without a space.
    Field(Vec<String>, bool),
    /// `$x` or `$`, without the sigil.
    Variable(String),
    /// A keyword or a function's name.
    Word(String),
    /// A text literal.
    Text(String),
    /// A number literal (a character literal too).
    Number(serde_json::Number),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cuts a template into pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(start) = rest.find("{{") {
        let mut literal = &rest[..start];
        rest = &rest[start + 2..];
        if trim_next {
            literal = literal.trim_start();
        }
        if let Some(after) = rest.strip_prefix('-').filter(|r| r.starts_with(char::is_whitespace)) {
            literal = literal.trim_end();
            rest = after;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        let body = rest.trim_start();
        if let Some(comment) = body.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| TemplateError("unclosed comment".to_owned()))?;
            let after = comment[end + 2..].trim_start();
            let (after, trim) = after.strip_prefix('-').map_or((after, false), |after| (after, true));
            rest = after.strip_prefix("}}").ok_or_else(|| TemplateError("comment ends before }}".to_owned()))?;
            trim_next = trim;
            continue;
        }
        let (tokens, after, trim) = action(rest)?;
        pieces.push(Piece::Action(tokens));
        rest = after;
        trim_next = trim;
    }
    let literal = if trim_next { rest.trim_start() } else { rest };
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.to_owned()));
    }
    Ok(pieces)
}

/// The tokens up to `}}`, what follows it, and whether the text after is to be trimmed.
fn action(mut rest: &str) -> Result<(Vec<Token>, &str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut spaced = true;
    loop {
        let trimmed = rest.trim_start();
        spaced |= trimmed.len() != rest.len();
        let space_before = trimmed.len() != rest.len();
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        if space_before && let Some(after) = rest.strip_prefix("-}}") {
            return Ok((tokens, after, true));
        }
        let Some(first) = rest.chars().next() else {
            return Err(TemplateError("unclosed action".to_owned()));
        };
        let (token, after) = token(first, rest, !spaced)?;
        tokens.push(token);
        rest = after;
        spaced = false;
    }
}

fn token(first: char, rest: &str, attached: bool) -> Result<(Token, &str), TemplateError> {
    let simple = |token, len: usize| Ok((token, &rest[len..]));
    match first {
        '|' => simple(Token::Pipe, 1),
        '(' => simple(Token::Open, 1),
        ')' => simple(Token::Close, 1),
        ',' => simple(Token::Comma, 1),
        '=' => simple(Token::Assign, 1),
        ':' if rest.starts_with(":=") => simple(Token::Declare, 2),
        '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let (names, after) = field(rest);
            Ok((Token::Field(names, attached), after))
        }
        '$' => {
            let end = name_end(&rest[1..]);
            Ok((Token::Variable(rest[1..=end].to_owned()), &rest[end + 1..]))
        }
        '"' => quoted(rest),
        '`' => match rest[1..].find('`') {
            Some(end) => Ok((Token::Text(rest[1..=end].to_owned()), &rest[end + 2..])),
            None => Err(TemplateError("unterminated raw quoted string".to_owned())),
        },
        '\'' => {
            let (text, after) = unescape(&rest[1..], '\'')?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Ok((Token::Number(u32::from(c).into()), after)),
                _ => Err(TemplateError("malformed character constant".to_owned())),
            }
        }
        c if c.is_ascii_digit() || c == '-' || c == '+' || c == '.' => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let end = name_end(rest);
            Ok((Token::Word(rest[..end].to_owned()), &rest[end..]))
        }
        c => Err(TemplateError(format!("unexpected {c:?} in command"))),
    }
}

fn field(mut rest: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let end = name_end(after);
        rest = &after[end..];
        if end == 0 {
            break;
        }
        names.push(after[..end].to_owned());
    }
    (names, rest)
}

fn name_end(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number(rest: &str) -> Result<(Token, &str), TemplateError> {
    let end = rest
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_alphanumeric() || *c == '.' || (*at == 0 && (*c == '-' || *c == '+'))))
        .map_or(rest.len(), |(at, _)| at);
    let text = rest[..end].strip_prefix('+').unwrap_or(&rest[..end]);
    let number = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Into::into),
        None => text.parse::<i64>().ok().map(Into::into),
    };
    let number = number.or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64));
    match number {
        Some(number) => Ok((Token::Number(number), &rest[end..])),
        None => Err(TemplateError(format!("bad number syntax: {text:?}"))),
    }
}

fn quoted(rest: &str) -> Result<(Token, &str), TemplateError> {
    let (text, after) = unescape(&rest[1..], '"')?;
    Ok((Token::Text(text), after))
}

/// Text up to the closing `quote`, its escapes resolved, and what follows.
fn unescape(rest: &str, quote: char) -> Result<(String, &str), TemplateError> {
    let mut text = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((text, &rest[at + 1..])),
            '\n' => break,
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                Some(c) => return Err(TemplateError(format!("unknown escape \\{c} in a quoted string"))),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(TemplateError("unterminated quoted string".to_owned()))
}
