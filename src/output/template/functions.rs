//! What a template can call: Go's own functions and docker's helpers.

use super::TemplateError;
use serde_json::Value;
use std::cmp::Ordering;

const NAMES: [&str; 23] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt", "le", "gt", "ge",
    "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Padding and lengths asked for by a template are cut here.
const MAX_WIDTH: usize = 4096;

/// Whether there is a function of this name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

fn error<T>(message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(message.into()))
}

/// Whether a value counts as true: not empty, not zero.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
pub(super) fn format_value(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(nested).collect())),
        Value::Object(map) => {
            format!("map[{}]", list(map.iter().map(|(k, v)| format!("{k}:{}", nested(v))).collect()))
        }
    }
}

fn nested(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { format_value(value) }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (name, arguments) {
        ("and", [.., last]) | ("or", [.., last]) => {
            let decides = |v: &&Value| truth(v) == (name == "or");
            Ok(arguments.iter().find(decides).unwrap_or(last).clone())
        }
        ("not", [value]) => Ok(Value::Bool(!truth(value))),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("print", _) => Ok(print(arguments).into()),
        ("println", _) => {
            let words: Vec<String> = arguments.iter().map(format_value).collect();
            Ok(format!("{}\n", words.join(" ")).into())
        }
        ("printf", [format, rest @ ..]) => Ok(printf(&format_value(format), rest).into()),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            Ok(others.iter().any(|other| compare(first, other) == Some(Ordering::Equal)).into())
        }
        ("ne", [a, b]) => Ok((compare(a, b) != Some(Ordering::Equal)).into()),
        ("lt" | "le" | "gt" | "ge", [a, b]) => match compare(a, b) {
            Some(order) => Ok(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into()),
            None => error(format!("error calling {name}: incompatible types for comparison")),
        },
        ("json", [value]) => Ok(value.to_string().into()),
        ("split", [text, separator]) => Ok(split(&format_value(text), &format_value(separator))),
        ("join", [Value::Array(list), separator]) => {
            let words: Vec<String> = list.iter().map(format_value).collect();
            Ok(words.join(&format_value(separator)).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("title", [text]) => Ok(title(&format_value(text)).into()),
        ("lower", [text]) => Ok(format_value(text).to_lowercase().into()),
        ("upper", [text]) => Ok(format_value(text).to_uppercase().into()),
        ("pad", [text, before, after]) => pad(&format_value(text), before, after),
        ("truncate", [text, limit]) => {
            let limit = count(limit)?;
            Ok(format_value(text).chars().take(limit).collect::<String>().into())
        }
        _ => error(format!("wrong number or type of arguments for {name}: got {}", arguments.len())),
    }
}

fn count(value: &Value) -> Result<usize, TemplateError> {
    match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(n) => Ok(n),
        None => error(format!("expected a number that is not negative, got {}", format_value(value))),
    }
}

fn length(value: &Value) -> Result<Value, TemplateError> {
    Ok(match value {
        Value::String(s) => s.len(),
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        Value::Null => 0,
        other => return error(format!("error calling len: len of type {}", format_value(other))),
    }
    .into())
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(map), Value::String(key)) => {
            Ok(map.get(key).cloned().unwrap_or_else(|| match map.values().next() {
                // A Go map's missing element is its type's zero value.
                None | Some(Value::String(_)) => "".into(),
                _ => Value::Null,
            }))
        }
        (Value::Array(list), key) => {
            let at = count(key)?;
            match list.get(at) {
                Some(item) => Ok(item.clone()),
                None => error(format!("error calling index: index out of range: {at}")),
            }
        }
        (Value::Null, _) => error("error calling index: index of untyped nil"),
        _ => error(format!("error calling index: can't index item of {}", format_value(value))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, TemplateError> {
    let bounds = bounds.iter().map(count).collect::<Result<Vec<_>, _>>()?;
    let start = bounds.first().copied().unwrap_or(0);
    let made = match value {
        Value::String(text) => {
            text.get(start..bounds.get(1).copied().unwrap_or(text.len())).map(|part| Value::from(part.to_owned()))
        }
        Value::Array(list) => {
            list.get(start..bounds.get(1).copied().unwrap_or(list.len())).map(|part| part.to_vec().into())
        }
        _ => None,
    };
    made.map_or_else(|| error("error calling slice: index out of range"), Ok)
}

/// Go's Sprint: a space between two values where neither is text.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&format_value(value));
    }
    text
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return text.chars().map(|c| Value::from(c.to_string())).collect();
    }
    text.split(separator).map(Value::from).collect()
}

fn title(text: &str) -> String {
    let mut start = true;
    let capital = |c: char| c.to_uppercase().collect::<String>();
    text.chars()
        .map(|c| {
            let made = if start { capital(c) } else { c.to_string() };
            start = c.is_whitespace();
            made
        })
        .collect()
}

fn pad(text: &str, before: &Value, after: &Value) -> Result<Value, TemplateError> {
    if text.is_empty() {
        return Ok("".into());
    }
    let spaces = |n: &Value| count(n).map(|n| " ".repeat(n.min(MAX_WIDTH)));
    Ok(format!("{}{text}{}", spaces(before)?, spaces(after)?).into())
}

/// Go's Sprintf with the verbs that make sense for JSON values.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(c) = chars.next_if(|c| matches!(c, '-' | '+' | '#' | '0' | ' ')) {
            flags.push(c);
        }
        let mut number = || {
            let mut n = None;
            while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
                n = Some((n.unwrap_or(0usize) * 10 + usize::try_from(digit).unwrap_or(0)).min(MAX_WIDTH));
            }
            n
        };
        let width = number().unwrap_or(0);
        let precision = chars.next_if_eq(&'.').map(|_| 0);
        let precision = precision.map(|zero| {
            let mut n = zero;
            while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
                n = (n * 10 + usize::try_from(digit).unwrap_or(0)).min(MAX_WIDTH);
            }
            n
        });
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match arguments.next() {
            Some(value) => verb_text(verb, value, precision),
            None => format!("%!{verb}(MISSING)"),
        };
        let missing = width.saturating_sub(text.chars().count());
        match (flags.contains('-'), flags.contains('0') && "dfxX".contains(verb)) {
            (true, _) => out.extend([text, " ".repeat(missing)]),
            (false, true) => out.extend(["0".repeat(missing), text]),
            (false, false) => out.extend([" ".repeat(missing), text]),
        }
    }
    out
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>) -> String {
    let text = format_value(value);
    match (verb, value) {
        ('s', Value::String(s)) => match precision {
            Some(limit) => s.chars().take(limit).collect(),
            None => text,
        },
        ('v' | 's', _) => text,
        ('q', Value::String(s)) => format!("{s:?}"),
        ('d', Value::Number(n)) if n.is_i64() || n.is_u64() => text,
        ('x', Value::Number(n)) if n.is_u64() => format!("{:x}", n.as_u64().unwrap_or(0)),
        ('X', Value::Number(n)) if n.is_u64() => format!("{:X}", n.as_u64().unwrap_or(0)),
        ('f' | 'g', Value::Number(n)) => {
            format!("{:.*}", precision.unwrap_or(6), n.as_f64().unwrap_or(0.0))
        }
        ('t', Value::Bool(_)) => text,
        _ => format!("%!{verb}({text})"),
    }
}
