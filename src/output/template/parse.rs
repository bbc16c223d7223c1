//! Tokens to a tree of blocks, pipelines and operands.

use super::lexer::{Piece, Token, pieces};
use super::{MAX_DEPTH, TemplateError};
use serde_json::Value;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Literal text.
    Text(String),
    /// `{{pipeline}}`
    Print(Pipeline),
    /// `{{if}}…{{else}}…{{end}}`
    If(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{with}}…{{else}}…{{end}}`
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{range}}…{{else}}…{{end}}`
    Range(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
}

/// Commands joined by `|`, perhaps kept in variables.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The variables it sets; for `range` the second gets the element.
    pub(super) variables: Vec<String>,
    /// By `:=`, not by `=`.
    pub(super) declares: bool,
    /// Each gets the result of the one before as its last argument.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A word of a command.
#[derive(Debug)]
pub(super) enum Operand {
    /// `.A.B` of the current value.
    Field(Vec<String>),
    /// `$x.A.B`
    Variable(String, Vec<String>),
    /// `(pipeline).A.B`
    Group(Box<Pipeline>, Vec<String>),
    /// A function's name.
    Function(String),
    /// A literal.
    Literal(Value),
}

fn error<T>(message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(message.into()))
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter(), loops: 0 };
    match parser.block(0)? {
        (nodes, None) => Ok(nodes),
        (_, Some(tokens)) => error(format!("unexpected {{{{{}}}}}", keyword(&tokens).unwrap_or_default())),
    }
}

fn keyword(tokens: &[Token]) -> Option<&str> {
    match tokens.first() {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    loops: usize,
}

impl Parser {
    /// Nodes up to the text's end, or up to an `else` or `end`, which is returned.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Option<Vec<Token>>), TemplateError> {
        if depth > MAX_DEPTH {
            return error("blocks are nested too deeply");
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            match keyword(&tokens) {
                Some("end" | "else") => return Ok((nodes, Some(tokens))),
                Some(word @ ("if" | "with" | "range")) => {
                    let word = word.to_owned();
                    nodes.push(self.control(&word, &tokens[1..], depth)?);
                }
                Some(word @ ("break" | "continue")) => {
                    if self.loops == 0 {
                        return error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                Some(word @ ("define" | "template" | "block")) => {
                    return error(format!("{{{{{word}}}}} is not supported"));
                }
                _ => nodes.push(Node::Print(pipeline(&tokens)?)),
            }
        }
        Ok((nodes, None))
    }

    /// The block that `if`, `with` or `range` opens, through its `end`.
    fn control(&mut self, word: &str, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let pipeline = pipeline(tokens)?;
        self.loops += usize::from(word == "range");
        let (body, end) = self.block(depth + 1)?;
        self.loops -= usize::from(word == "range");
        let other = match end {
            None => return error("unexpected EOF"),
            Some(tokens) if keyword(&tokens) == Some("end") => Vec::new(),
            Some(tokens) => match keyword(&tokens[1..]) {
                // `{{else if x}}` is an if of its own that shares the end.
                Some(inner @ ("if" | "with")) if inner == word => {
                    if depth > MAX_DEPTH {
                        return error("blocks are nested too deeply");
                    }
                    vec![self.control(word, &tokens[2..], depth + 1)?]
                }
                None if tokens.len() == 1 => match self.block(depth + 1)? {
                    (other, Some(end)) if keyword(&end) == Some("end") => other,
                    (_, Some(_)) => return error("unexpected {{else}}"),
                    (_, None) => return error("unexpected EOF"),
                },
                _ => return error("unexpected text after {{else"),
            },
        };
        Ok(match word {
            "if" => Node::If(pipeline, body, other),
            "with" => Node::With(pipeline, body, other),
            _ => Node::Range(pipeline, body, other),
        })
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, TemplateError> {
    let (variables, declares, rest) = match tokens {
        [Token::Variable(a), Token::Declare, rest @ ..] => (vec![a.clone()], true, rest),
        [Token::Variable(a), Token::Assign, rest @ ..] => (vec![a.clone()], false, rest),
        [Token::Variable(a), Token::Comma, Token::Variable(b), Token::Declare, rest @ ..] => {
            (vec![a.clone(), b.clone()], true, rest)
        }
        rest => (Vec::new(), false, rest),
    };
    let mut rest = rest;
    let commands = commands(&mut rest, 0)?;
    match rest.first() {
        None => Ok(Pipeline { variables, declares, commands }),
        Some(Token::Close) => error("unexpected right paren"),
        Some(_) => error("unexpected text in action"),
    }
}

/// Commands up to the end or an unmatched `)`.
fn commands(rest: &mut &[Token], depth: usize) -> Result<Vec<Vec<Operand>>, TemplateError> {
    if depth > MAX_DEPTH {
        return error("parentheses are nested too deeply");
    }
    let mut commands = Vec::new();
    loop {
        let mut operands: Vec<Operand> = Vec::new();
        while let Some((token, after)) = rest.split_first() {
            if matches!(token, Token::Pipe | Token::Close) {
                break;
            }
            *rest = after;
            operand(token, rest, &mut operands, depth)?;
        }
        if operands.is_empty() {
            return error("missing value for command");
        }
        commands.push(operands);
        match rest.split_first() {
            Some((Token::Pipe, after)) => *rest = after,
            _ => return Ok(commands),
        }
    }
}

/// Adds what `token` (and, for a parenthesis, what follows) says to `operands`.
fn operand(token: &Token, rest: &mut &[Token], operands: &mut Vec<Operand>, depth: usize) -> Result<(), TemplateError> {
    let made = match token {
        Token::Field(names, attached) => {
            if *attached && let Some(Operand::Variable(_, path) | Operand::Group(_, path)) = operands.last_mut() {
                path.extend(names.iter().cloned());
                return Ok(());
            }
            Operand::Field(names.clone())
        }
        Token::Variable(name) => Operand::Variable(name.clone(), Vec::new()),
        Token::Word(word) => match word.as_str() {
            "true" => Operand::Literal(Value::Bool(true)),
            "false" => Operand::Literal(Value::Bool(false)),
            "nil" => Operand::Literal(Value::Null),
            _ if super::functions::is_known(word) => Operand::Function(word.clone()),
            _ => return error(format!("function \"{word}\" not defined")),
        },
        Token::Text(text) => Operand::Literal(Value::String(text.clone())),
        Token::Number(number) => Operand::Literal(Value::Number(number.clone())),
        Token::Open => {
            let commands = commands(rest, depth + 1)?;
            match rest.split_first() {
                Some((Token::Close, after)) => *rest = after,
                _ => return error("unclosed left paren"),
            }
            let inner = Pipeline { variables: Vec::new(), declares: false, commands };
            Operand::Group(Box::new(inner), Vec::new())
        }
        Token::Comma | Token::Declare | Token::Assign | Token::Pipe | Token::Close => {
            return error("unexpected punctuation in command");
        }
    };
    operands.push(made);
    Ok(())
}
