//! Syntax tree → typed instructions. Texts that variables are substituted in are still unexpanded here.

mod duration;
mod file;
mod flags;
mod lint;
mod parse;
mod run;
mod suggest;

pub(crate) use file::{Chmod, CopyInstruction};
pub(crate) use lint::{ignored, lint};
pub(crate) use parse::{from_node, trigger};
pub(crate) use run::{Mount, MountKind, RunInstruction, Sharing};
pub(crate) use suggest::nearest;

use crate::parser::{Heredoc, Span};

/// An instruction with its place and text.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) instruction: Instruction,
    /// The logical line as written, for messages and step names.
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// What a Containerfile can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    From(FromInstruction),
    /// Names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(RunInstruction),
    Copy(CopyInstruction),
    Workdir(String),
    User(String),
    Cmd(Command),
    Entrypoint(Command),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    /// None: `HEALTHCHECK NONE`.
    Healthcheck(Option<HealthcheckSpec>),
    /// The trigger's text, checked to be an instruction.
    Onbuild(String),
    Maintainer(String),
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FromInstruction {
    pub(crate) image: String,
    pub(crate) platform: Option<String>,
    pub(crate) name: Option<String>,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// To be given to the SHELL.
    Shell(String),
    /// Arguments as they are.
    Exec(Vec<String>),
}

/// `HEALTHCHECK [options] CMD …`; durations are in nanoseconds, 0 where not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthcheckSpec {
    pub(crate) command: Command,
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    pub(crate) start_period: i64,
    pub(crate) start_interval: i64,
    pub(crate) retries: i64,
}

impl Instruction {
    /// The keyword, in capitals.
    pub(crate) fn keyword(&self) -> &'static str {
        match self {
            Instruction::From(_) => "FROM",
            Instruction::Arg(_) => "ARG",
            Instruction::Env(_) => "ENV",
            Instruction::Label(_) => "LABEL",
            Instruction::Run(_) => "RUN",
            Instruction::Copy(copy) if copy.is_add => "ADD",
            Instruction::Copy(_) => "COPY",
            Instruction::Workdir(_) => "WORKDIR",
            Instruction::User(_) => "USER",
            Instruction::Cmd(_) => "CMD",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Volume(_) => "VOLUME",
            Instruction::StopSignal(_) => "STOPSIGNAL",
            Instruction::Shell(_) => "SHELL",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            Instruction::Onbuild(_) => "ONBUILD",
            Instruction::Maintainer(_) => "MAINTAINER",
        }
    }

    /// Whether it may change files, and so is a numbered step.
    pub(crate) fn makes_layer(&self) -> bool {
        matches!(self, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_))
    }
}

/// The heredoc a COPY source word announces: `<<name` with its quotes.
pub(crate) fn heredoc_of_word<'a>(word: &str, heredocs: &'a [Heredoc]) -> Option<&'a Heredoc> {
    let name = word.strip_prefix("<<")?;
    let name = name.strip_prefix('-').unwrap_or(name);
    let name: String = name.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    heredocs.iter().find(|heredoc| heredoc.name == name)
}

#[cfg(test)]
mod tests;
