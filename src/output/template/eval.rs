//! Walking a template's tree over a value.

use super::TemplateError;
use super::functions::{call, format_value, truth};
use super::parse::{Node, Operand, Pipeline};
use serde_json::Value;

/// The longest text a template may make, in bytes: a loop in a loop over a large list grows fast.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Objects whose keys are the user's own: a missing one is no mistake in the template.
const MAPS: [&str; 12] = [
    "Labels",
    "Annotations",
    "Options",
    "Networks",
    "Ports",
    "ExposedPorts",
    "Volumes",
    "Sysctls",
    "Tmpfs",
    "Config",
    "GraphDriver",
    "Data",
];

/// Renders nodes over `data`.
pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut state = State { root: data, variables: vec![(String::new(), data.clone())], out: String::new() };
    state.nodes(nodes, data)?;
    Ok(state.out)
}

struct State<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

fn error<T>(message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(message.into()))
}

impl State<'_> {
    /// Variables declared within are gone afterwards.
    fn scope(&mut self, nodes: &[Node], dot: &Value, keep: usize) -> Result<Flow, TemplateError> {
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(keep);
        flow
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            if self.out.len() > MAX_OUTPUT_BYTES {
                return error("the output is too long");
            }
            let keep = self.variables.len();
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&format_value(&value));
                    }
                    Flow::Next
                }
                Node::If(pipeline, body, other) => {
                    let holds = truth(&self.pipeline(pipeline, dot)?);
                    self.scope(if holds { body } else { other }, dot, keep)?
                }
                Node::With(pipeline, body, other) => {
                    let value = self.pipeline(pipeline, dot)?;
                    let holds = truth(&value);
                    if holds { self.scope(body, &value, keep)? } else { self.scope(other, dot, keep)? }
                }
                Node::Range(pipeline, body, other) => self.range(pipeline, body, other, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        other: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let keep = self.variables.len();
        let entries: Vec<(Value, Value)> = match self.commands(pipeline, dot)? {
            Value::Array(list) => list.into_iter().enumerate().map(|(at, value)| (at.into(), value)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            Value::Null => Vec::new(),
            Value::String(text) if text.is_empty() => Vec::new(),
            value => return error(format!("range can't iterate over {}", format_value(&value))),
        };
        if entries.is_empty() {
            return self.scope(other, dot, keep);
        }
        for (key, value) in entries {
            match &pipeline.variables[..] {
                [element] => self.variables.push((element.clone(), value.clone())),
                [index, element] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), value.clone()));
                }
                _ => {}
            }
            if self.scope(body, &value, keep)? == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// A pipeline's value, kept in its variable where it has one.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        if let [name] = &pipeline.variables[..] {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                    Some((_, old)) => *old = value.clone(),
                    None => return error(format!("undefined variable \"${name}\"")),
                }
            }
        } else if !pipeline.variables.is_empty() {
            return error("two variables are for {{range}} alone");
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &[Operand], last: Option<Value>, dot: &Value) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.split_first() else {
            return error("missing value for command");
        };
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        let short_circuits = matches!(first, Operand::Function(name) if name == "and" || name == "or");
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
            // `and` and `or` leave off evaluating at the first value that decides.
            if short_circuits && let Operand::Function(name) = first {
                let value = &arguments[arguments.len() - 1];
                if truth(value) == (name == "or") {
                    return Ok(value.clone());
                }
            }
        }
        arguments.extend(last);
        match first {
            Operand::Function(name) => call(name, &arguments),
            // A method of docker's rows: `.Label "name"`.
            Operand::Field(path) if path.len() == 1 && path[0] == "Label" && arguments.len() == 1 => {
                Ok(label(self.root, dot, &arguments[0]))
            }
            _ if arguments.is_empty() => self.operand(first, dot),
            Operand::Field(path) => {
                error(format!("{} is no function, but has arguments", path.last().map_or(".", |p| p)))
            }
            _ => error("can't give arguments to a value that is no function"),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(path) => walk(dot, path),
            Operand::Variable(name, path) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => walk(value, path),
                None => error(format!("undefined variable \"${name}\"")),
            },
            Operand::Group(pipeline, path) => walk(&self.commands(pipeline, dot)?, path),
            Operand::Function(name) => call(name, &[]),
        }
    }
}

/// A label of a table's row: the row has them as an object under a key that starts with a NUL, or as a map.
fn label(root: &Value, dot: &Value, name: &Value) -> Value {
    let name = name.as_str().unwrap_or_default();
    let find = |value: &Value| value.get("Labels").and_then(|labels| labels.get(name)).cloned();
    let joined = |value: &Value| {
        let text = value.get("Labels")?.as_str()?;
        text.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(Value::from))
    };
    find(dot).or_else(|| joined(dot)).or_else(|| find(root)).unwrap_or_else(|| Value::from(""))
}

/// Follows a path of fields.
fn walk(value: &Value, path: &[String]) -> Result<Value, TemplateError> {
    let mut value = value;
    let mut parent = "";
    for name in path {
        value = match value {
            Value::Object(map) => {
                let found = map
                    .get(name)
                    .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
                match found {
                    Some(found) => found,
                    None if MAPS.contains(&parent) => return Ok(Value::Null),
                    None => return error(format!("map has no entry for key \"{name}\"")),
                }
            }
            Value::Null => return error(format!("nil data; no entry for key \"{name}\"")),
            other => return error(format!("can't evaluate field {name} in {}", format_value(other))),
        };
        parent = name;
    }
    Ok(value.clone())
}
