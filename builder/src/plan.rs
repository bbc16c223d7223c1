//! Instructions → stages as a graph. Which stages a build needs, what each starts from, and what variables FROM sees
//! are settled here; nothing is executed.

use crate::error::BuildError;
use crate::event::Warning;
use crate::expand::{ExpandError, Expander, MAX_ALL_BYTES};
use crate::instruction::{FromInstruction, Instruction, Located, nearest};
use crate::parser::{Document, Source, Span};
use crate::request::BuildRequest;
use oci::Platform;
use std::collections::{BTreeMap, BTreeSet};

/// More stages than any real recipe has; each is a thread.
const MAX_STAGES: usize = 500;

/// Variables everybody may set without declaring them; they reach RUN, but neither cache keys nor the history.
pub(crate) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A whole build, understood.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) source: Source,
    pub(crate) escape: char,
    /// ARGs before the first FROM that have a value.
    pub(crate) global_args: BTreeMap<String, String>,
    /// The ARGs before the first FROM.
    pub(crate) global_steps: Vec<Located>,
    pub(crate) stages: Vec<StagePlan>,
    /// The stage whose image is the build's.
    pub(crate) target: usize,
    /// The names of `--build-context`.
    contexts: Vec<String>,
    /// Lint rules that the recipe does not want to hear of.
    pub(crate) skipped_rules: Vec<String>,
    /// A warning ends the build.
    pub(crate) warnings_fail: bool,
}

/// One stage.
#[derive(Debug)]
pub(crate) struct StagePlan {
    pub(crate) name: Option<String>,
    pub(crate) base: Base,
    pub(crate) platform: Option<Platform>,
    /// The FROM.
    pub(crate) from: Located,
    pub(crate) steps: Vec<Located>,
    /// A named context of its name takes its place.
    is_replaced: bool,
}

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image by this name.
    Image(String),
    /// A named context, by its place in the request.
    Context(usize),
}

/// What a `--from`, or a mount's `from`, names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// An earlier stage.
    Stage(usize),
    /// A named context, by its place in the request.
    Context(usize),
    /// An image by this name.
    Image(String),
}

impl Plan {
    /// Understands a recipe's structure for this request.
    pub(crate) fn new(
        document: Document,
        instructions: Vec<Located>,
        request: &BuildRequest,
    ) -> Result<(Plan, Vec<Warning>), BuildError> {
        let Document { source, directives, .. } = document;
        let (skipped_rules, warnings_fail) = (directives.skipped_rules, directives.warnings_fail);
        let mut planner = Planner {
            request,
            source,
            escape: directives.escape,
            automatic: platform_args(request),
            global_args: BTreeMap::new(),
            default_args: BTreeMap::new(),
            args_bytes: 0,
            global_steps: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
            contexts: request.contexts.iter().map(|(name, _)| name.clone()).collect(),
        };
        for located in instructions {
            planner.take(located)?;
        }
        let (plan, warnings) = planner.finish()?;
        Ok((Plan { skipped_rules, warnings_fail, ..plan }, warnings))
    }

    /// What a `--from` of stage `user` names: a named context, else an earlier stage by name or index, else an image.
    pub(crate) fn find_from(&self, text: &str, user: usize, span: Span) -> Result<From, BuildError> {
        if let Some(index) = find_context(&self.contexts, text) {
            return Ok(From::Context(index));
        }
        let stage = find_stage(&self.stages, &self.source, text, user, span)?;
        Ok(stage.map_or_else(|| From::Image(text.to_owned()), From::Stage))
    }

    /// The stages the target needs, itself included, in order.
    pub(crate) fn reachable(&self) -> Vec<usize> {
        let mut needed = BTreeSet::new();
        let mut pending = vec![self.target];
        while let Some(index) = pending.pop() {
            let Some(stage) = self.stages.get(index).filter(|_| needed.insert(index)) else { continue };
            if let Base::Stage(base) = stage.base {
                pending.push(base);
            }
            for step in &stage.steps {
                for text in froms(&step.instruction) {
                    if let Ok(From::Stage(stage)) = self.find_from(text, index, step.span) {
                        pending.push(stage);
                    }
                }
            }
        }
        needed.into_iter().collect()
    }

    /// The stage that was meant by a name that no stage has.
    pub(crate) fn near_stage(&self, text: &str) -> Option<&str> {
        nearest(text, self.stages.iter().filter_map(|stage| stage.name.as_deref()))
    }

    /// The name of a named context.
    pub(crate) fn context_name(&self, index: usize) -> &str {
        self.contexts.get(index).map_or("", String::as_str)
    }

    /// The target, and the stages it is built on: those whose layers are the image's.
    pub(crate) fn lineage(&self) -> Vec<usize> {
        let mut found = vec![self.target];
        while let Some(Base::Stage(base)) = found.last().and_then(|index| self.stages.get(*index)).map(|s| &s.base) {
            found.push(*base);
        }
        found
    }

    /// How steps of a stage are called: its name, else `stage-N` where there are several.
    pub(crate) fn stage_label(&self, index: usize) -> String {
        match self.stages.get(index).and_then(|stage| stage.name.as_deref()) {
            Some(name) => name.to_owned(),
            None if self.stages.len() > 1 => format!("stage-{index}"),
            None => String::new(),
        }
    }
}

/// The `from`s an instruction names.
pub(crate) fn froms(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
        _ => Vec::new(),
    }
}

/// The named context a text means: by its name, or as images are named (`alpine` is `docker.io/library/alpine:latest`).
fn find_context(names: &[String], text: &str) -> Option<usize> {
    let reference = text.parse::<oci::Reference>().ok();
    names.iter().rposition(|name| {
        name.eq_ignore_ascii_case(text) || (reference.is_some() && name.parse::<oci::Reference>().ok() == reference)
    })
}

fn find_stage(
    stages: &[StagePlan],
    source: &Source,
    text: &str,
    user: usize,
    span: Span,
) -> Result<Option<usize>, BuildError> {
    let named = |stage: &&StagePlan| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(text));
    if let Some(index) = stages.iter().take(user).rposition(|stage| named(&stage)) {
        return Ok(Some(index));
    }
    match text.parse::<usize>() {
        Ok(index) if index < user => Ok(Some(index)),
        Ok(_) => {
            let message = format!("invalid from value {text}: stage {text} is not before this one");
            Err(source.error(span, message))
        }
        Err(_) => Ok(None),
    }
}

/// `TARGETPLATFORM` and its kin.
pub(crate) fn platform_args(request: &BuildRequest) -> BTreeMap<String, String> {
    let host = Platform::host();
    let target = request.platform.clone().unwrap_or_else(|| host.clone());
    let mut values = BTreeMap::new();
    for (prefix, platform) in [("TARGET", &target), ("BUILD", &host)] {
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    values.insert("TARGETSTAGE".to_owned(), request.target.clone().unwrap_or_else(|| "default".to_owned()));
    values
}

struct Planner<'a> {
    request: &'a BuildRequest,
    source: Source,
    escape: char,
    automatic: BTreeMap<String, String>,
    global_args: BTreeMap<String, String>,
    /// The same as if no --build-arg were given.
    default_args: BTreeMap<String, String>,
    /// Of both so far.
    args_bytes: usize,
    global_steps: Vec<Located>,
    stages: Vec<StagePlan>,
    warnings: Vec<Warning>,
    contexts: Vec<String>,
}

impl Planner<'_> {
    fn take(&mut self, located: Located) -> Result<(), BuildError> {
        match (&located.instruction, self.stages.is_empty()) {
            (Instruction::From(from), _) => {
                let stage = self.stage(from, &located)?;
                self.stages.push(stage);
                if self.stages.len() > MAX_STAGES {
                    return Err(self.source.error(located.span, format!("more than {MAX_STAGES} stages")));
                }
            }
            (Instruction::Arg(names), true) => {
                for (name, default) in names {
                    self.global_arg(name, default.as_deref(), located.span)?;
                }
                self.global_steps.push(located);
            }
            (_, true) => {
                let hint = "begin with FROM; only ARG may stand before it".to_owned();
                let message =
                    format!("no build stage in current context: {} before FROM", located.instruction.keyword());
                return Err(self.source.error_with_hint(located.span, message, Some(hint)));
            }
            (other, false) => {
                for text in froms(other).into_iter().filter(|text| find_context(&self.contexts, text).is_none()) {
                    find_stage(&self.stages, &self.source, text, self.stages.len() - 1, located.span)?;
                }
                // A stage that a named context stands for is not built.
                if let Some(stage) = self.stages.last_mut().filter(|stage| !stage.is_replaced) {
                    stage.steps.push(located);
                }
            }
        }
        Ok(())
    }

    fn global_arg(&mut self, name: &str, default: Option<&str>, span: Span) -> Result<(), BuildError> {
        let given =
            self.request.build_args.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.clone());
        let value = match (given, default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(self.expand(default, span)?.0),
            (None, None) => None,
        };
        if let Some(default) = default {
            let lookup = |name: &str| self.default_args.get(name).or_else(|| self.automatic.get(name)).cloned();
            let value = Expander::new(self.escape, &lookup).word(default).unwrap_or_default();
            self.args_bytes += value.len();
            self.default_args.insert(name.to_owned(), value);
        }
        if let Some(value) = value {
            self.args_bytes += value.len();
            self.global_args.insert(name.to_owned(), value);
        }
        match self.args_bytes > MAX_ALL_BYTES {
            true => Err(self.source.error(span, ExpandError::AllTooLong.to_string())),
            false => Ok(()),
        }
    }

    /// Expands with what FROM sees, and tells what was not set.
    fn expand(&self, text: &str, span: Span) -> Result<(String, BTreeSet<String>), BuildError> {
        let lookup = |name: &str| self.global_args.get(name).or_else(|| self.automatic.get(name)).cloned();
        let expander = Expander::new(self.escape, &lookup);
        let value = expander.word(text).map_err(|e| self.source.error(span, e.to_string()))?;
        Ok((value, expander.unset()))
    }

    fn stage(&mut self, from: &FromInstruction, located: &Located) -> Result<StagePlan, BuildError> {
        let span = located.span;
        let (image, mut unset) = self.expand(&from.image, span)?;
        let hint = unset
            .first()
            .map(|name| format!("give it with --build-arg {name}=…, or write ARG {name}=default before FROM"));
        if image.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image);
            return Err(self.source.error_with_hint(span, message, hint));
        }
        if let Some(hint) = hint
            && let Err(error) = image.parse::<oci::Reference>()
        {
            return Err(self.source.error_with_hint(span, format!("{image:?}: {error}"), Some(hint)));
        }
        let platform = match &from.platform {
            None => None,
            Some(text) => {
                let (text, more) = self.expand(text, span)?;
                unset.extend(more);
                Some(text.parse::<Platform>().map_err(|e| self.source.error(span, e.to_string()))?)
            }
        };
        self.warn_of_bad_default(&from.image, span);
        for name in unset {
            let message = format!("FROM argument '{name}' is not declared");
            self.warnings.push(self.source.warning("UndefinedArgInFrom", span, message));
        }
        let earlier = |stage: &StagePlan| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&image));
        let replacing = from.name.as_deref().and_then(|name| find_context(&self.contexts, name));
        let base =
            match (replacing.or_else(|| find_context(&self.contexts, &image)), self.stages.iter().rposition(earlier)) {
                (Some(context), _) => Base::Context(context),
                (None, Some(index)) => Base::Stage(index),
                (None, None) if image == "scratch" => Base::Scratch,
                (None, None) => Base::Image(image),
            };
        let is_replaced = replacing.is_some();
        Ok(StagePlan { name: from.name.clone(), base, platform, from: located.clone(), steps: Vec::new(), is_replaced })
    }

    /// What builds with arguments only should build without.
    fn warn_of_bad_default(&mut self, image: &str, span: Span) {
        let lookup = |name: &str| self.default_args.get(name).or_else(|| self.automatic.get(name)).cloned();
        let by_default = Expander::new(self.escape, &lookup).word(image).unwrap_or_default();
        let is_stage = self.stages.iter().any(|stage| stage.name.as_deref() == Some(by_default.as_str()));
        if image.contains('$') && !is_stage && by_default.parse::<oci::Reference>().is_err() {
            let message = format!("Default value for ARG {image} results in empty or invalid base image name");
            self.warnings.push(self.source.warning("InvalidDefaultArgInFrom", span, message));
        }
    }

    fn finish(mut self) -> Result<(Plan, Vec<Warning>), BuildError> {
        if self.stages.is_empty() {
            return Err(BuildError::Containerfile {
                message: format!("{}: file with no instructions: nothing to build", self.source.name),
                at: None,
                hint: Some("a Containerfile begins with FROM".to_owned()),
            });
        }
        self.warn_of_unused_args();
        let target = self.find_target()?;
        let Planner { source, escape, global_args, global_steps, stages, warnings, contexts, .. } = self;
        let plan = Plan {
            source,
            escape,
            global_args,
            global_steps,
            stages,
            target,
            contexts,
            skipped_rules: Vec::new(),
            warnings_fail: false,
        };
        Ok((plan, warnings))
    }

    fn find_target(&self) -> Result<usize, BuildError> {
        let Some(wanted) = &self.request.target else { return Ok(self.stages.len() - 1) };
        let named = |stage: &StagePlan| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        let by_index = || wanted.parse::<usize>().ok().filter(|index| *index < self.stages.len());
        self.stages.iter().rposition(named).or_else(by_index).ok_or_else(|| {
            let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
            BuildError::Containerfile {
                message: format!("{}: target stage {wanted:?} could not be found", self.source.name),
                at: None,
                hint: nearest(wanted, names).map(|near| format!("did you mean {near}?")),
            }
        })
    }

    fn warn_of_unused_args(&mut self) {
        let declared: BTreeSet<&str> = (self.stages.iter().flat_map(|stage| &stage.steps))
            .filter_map(|step| if let Instruction::Arg(names) = &step.instruction { Some(names) } else { None })
            .flatten()
            .map(|(name, _)| name.as_str())
            .chain(self.global_args.keys().map(String::as_str))
            .chain(PROXY_ARGS)
            .collect();
        let given = self.request.build_args.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
        // BuildKit's own settings, and the one that is an option here too, need no declaration.
        let is_setting = |name: &&str| name.starts_with("BUILDKIT_") || *name == "SOURCE_DATE_EPOCH";
        let unused: Vec<&str> = given.into_iter().filter(|n| !declared.contains(n) && !is_setting(n)).collect();
        if !unused.is_empty() {
            let message = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            self.warnings.push(Warning { rule: "", message, location: None });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::instruction::from_node;
    use crate::parser::parse;
    use crate::request::Containerfile;

    fn plan_of(text: &str, edit: impl Fn(&mut BuildRequest)) -> Result<(Plan, Vec<Warning>), BuildError> {
        let file = Containerfile::from_text("Containerfile", text);
        let mut request = BuildRequest::new("/", file.clone());
        edit(&mut request);
        let document = parse(&file)?;
        let located =
            document.nodes.iter().map(|n| from_node(n, '\\', &document.source)).collect::<Result<Vec<_>, _>>()?;
        Plan::new(document, located, &request)
    }

    fn plan(text: &str) -> Plan {
        plan_of(text, |_| {}).unwrap().0
    }

    fn error(text: &str) -> String {
        plan_of(text, |_| {}).unwrap_err().to_string()
    }

    #[test]
    fn only_what_the_target_needs_is_reachable() {
        let text = "FROM a AS one\nFROM b AS two\nFROM scratch AS three\nCOPY --from=one x y\nFROM two\nRUN --mount=from=0,target=/x y";
        assert_eq!(plan(text).reachable(), [0, 1, 3]);
        let three = plan_of(text, |r| r.target = Some("THREE".into())).unwrap().0;
        assert_eq!(three.reachable(), [0, 2]);
        assert_eq!(plan_of(text, |r| r.target = Some("1".into())).unwrap().0.reachable(), [1]);
        let wrong = plan_of(text, |r| r.target = Some("tow".into())).unwrap_err();
        assert_eq!(wrong.hint(), Some("did you mean two?"));
    }

    #[test]
    fn bases_are_stages_images_or_nothing() {
        let plan = plan("FROM busybox AS Base\nFROM base\nFROM scratch\nFROM other");
        let bases: Vec<&Base> = plan.stages.iter().map(|stage| &stage.base).collect();
        let image = |name: &str| Base::Image(name.to_owned());
        assert_eq!(bases, [&image("busybox"), &Base::Stage(0), &Base::Scratch, &image("other")]);
    }

    #[test]
    fn from_sees_the_args_before_it() {
        let text = "ARG V=1\nARG I=app:$V\nFROM $I\nARG V\n";
        assert_eq!(plan(text).stages[0].base, Base::Image("app:1".into()));
        let given = plan_of(text, |r| r.build_args.push(("V".into(), "2".into()))).unwrap().0;
        assert_eq!(given.stages[0].base, Base::Image("app:2".into()));
        assert_eq!(given.global_args.get("V").map(String::as_str), Some("2"));
        assert!(error("ARG X\nFROM $X").contains("Containerfile:2: base name ($X) should not be blank"));
        assert!(error("FROM a:$X\nARG X=1").contains("Containerfile:1: \"a:\""));
        let (_, warnings) = plan_of("FROM a$X", |_| {}).unwrap();
        assert_eq!(warnings[0].rule, "UndefinedArgInFrom");
    }

    #[test]
    fn what_is_out_of_place_is_an_error() {
        assert!(error("RUN x\nFROM a").contains("Containerfile:1: no build stage in current context"));
        assert!(error("# nothing\n").contains("file with no instructions"));
        assert!(error("FROM a\nCOPY --from=0 a b").contains("stage 0 is not before this one"));
        let (_, warnings) = plan_of("FROM a", |r| r.build_args.push(("NOPE".into(), "1".into()))).unwrap();
        assert!(warnings[0].message.contains("[NOPE] were not consumed"));
    }
}
