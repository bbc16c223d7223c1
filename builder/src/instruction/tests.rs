#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::parser;
use crate::request::Containerfile;

fn all(text: &str) -> Result<(parser::Document, Vec<Located>), crate::BuildError> {
    let document = parser::parse(&Containerfile::from_text("Containerfile", text))?;
    let escape = document.directives.escape;
    let located =
        document.nodes.iter().map(|node| from_node(node, escape, &document.source)).collect::<Result<Vec<_>, _>>()?;
    Ok((document, located))
}

fn one(text: &str) -> Instruction {
    all(text).unwrap().1.remove(0).instruction
}

/// The message, and the hint behind ` | `.
fn error(text: &str) -> String {
    let error = all(text).unwrap_err();
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn rules(text: &str) -> Vec<&'static str> {
    let (document, located) = all(text).unwrap();
    lint(&document, &located).iter().map(|warning| warning.rule).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn pairs_have_a_new_and_a_legacy_form() {
    assert_eq!(
        one("ENV a=1 b=\"x y\" c=d\\ e"),
        Instruction::Env(pairs(&[("a", "1"), ("b", "\"x y\""), ("c", "d\\ e")]))
    );
    assert_eq!(one("ENV a one two"), Instruction::Env(pairs(&[("a", "one two")])));
    assert_eq!(one("LABEL \"a b\"=c"), Instruction::Label(pairs(&[("\"a b\"", "c")])));
    assert!(error("ENV a").contains("ENV must have two arguments"));
    assert!(error("ENV a=1 b").contains("can't find = in \"b\""));
    assert!(error("ENV =1").contains("ENV names can not be blank"));
    assert_eq!(one("ARG a b=1"), Instruction::Arg(vec![("a".into(), None), ("b".into(), Some("1".into()))]));
}

#[test]
fn from_takes_a_name_and_a_platform() {
    let Instruction::From(from) = one("FROM --platform=linux/arm64 a:1 as Build") else { panic!() };
    assert_eq!(
        (from.image.as_str(), from.name.as_deref(), from.platform.as_deref()),
        ("a:1", Some("build"), Some("linux/arm64"))
    );
    assert!(error("FROM a b").contains("one or three arguments"));
    assert!(error("FROM a AS 1x").contains("invalid name for build stage: \"1x\""));
}

#[test]
fn unknown_words_are_answered_with_the_nearest_known() {
    assert_eq!(error("FROM a\nRNU x"), "Containerfile:2: unknown instruction: RNU | did you mean RUN?");
    assert_eq!(error("COPY --chwon=1 a b"), "Containerfile:1: unknown flag --chwon of COPY | did you mean --chown?");
    assert!(error("ENV --x a=1").contains("ENV takes no flags"));
    assert!(error("RUN --mount=type=cahce,target=/x y").contains("unknown type \"cahce\""));
    assert!(error("RUN --mount=type=cache,tarjet=/x y").contains("did you mean target?"));
    assert_eq!(all("FROM a\nRNU x").unwrap_err().source_line().unwrap().text, "RNU x");
}

#[test]
fn mounts_are_typed() {
    let Instruction::Run(run) = one(
        "RUN --mount=type=secret,id=ca,target=/etc/ca.pem,required --mount=type=cache,target=/c,sharing=locked,mode=0700 --mount=target=/b,from=x,rw --network=none a b",
    ) else {
        panic!()
    };
    assert_eq!(run.command, Command::Shell("a b".into()));
    assert_eq!(run.network, Some(crate::BuildNetwork::None));
    let kinds: Vec<_> = run.mounts.iter().map(|mount| mount.kind).collect();
    assert_eq!(kinds, [MountKind::Secret, MountKind::Cache, MountKind::Bind]);
    assert!(run.mounts[0].required);
    assert_eq!((run.mounts[1].sharing, run.mounts[1].mode), (Sharing::Locked, Some(0o700)));
    assert_eq!(run.mounts[2].read_only, Some(false));
    for bad in ["target=/x,size=1m", "type=tmpfs,target=/x,from=y", "target=/x,env=Y", "target=/x,required", "from=$X"]
    {
        assert!(error(&format!("RUN --mount={bad} x")).contains("invalid --mount"), "{bad}");
    }
}

#[test]
fn mounts_hold_variables_in_every_value() {
    let Instruction::Run(run) =
        one("RUN --mount=type=$T,uid=$U,mode=0$M,sharing=$S,target=/x,size=$Z --mount=from=b x")
    else {
        panic!()
    };
    assert_eq!((run.mounts[1].kind, run.mounts[1].target.as_deref()), (MountKind::Bind, None));
    let mut values = |text: &str| {
        let known = [("$T", "Cache"), ("$U", "5"), ("0$M", "0750"), ("$S", "LOCKED"), ("$Z", "1GiB")];
        Ok(known.into_iter().find(|(name, _)| *name == text).map_or(text, |(_, value)| value).to_owned())
    };
    let why = run.mounts[0].expanded(&mut values).unwrap_err();
    assert!(why.ends_with("size is for tmpfs mounts"), "{why}");
    let Instruction::Run(run) = one("RUN --mount=type=$T,uid=$U,mode=0$M,sharing=$S,target=/x x") else { panic!() };
    let mount = run.mounts[0].expanded(&mut values).unwrap();
    assert_eq!(
        (mount.kind, mount.uid, mount.mode, mount.sharing),
        (MountKind::Cache, Some(5), Some(0o750), Sharing::Locked)
    );
    let why = run.mounts[0].expanded(&mut |text| Ok(text.replace('$', "no"))).unwrap_err();
    assert!(why.contains("unknown type \"noT\""), "{why}");
    assert_eq!(one("RUN"), one("RUN "));
}

#[test]
fn copy_takes_its_last_word_as_destination() {
    let Instruction::Copy(copy) = one("COPY --from=b --chown=u:g a b /d/") else { panic!() };
    assert_eq!((copy.sources, copy.destination.as_str()), (vec!["a".to_owned(), "b".to_owned()], "/d/"));
    let Instruction::Copy(copy) = one("ADD [\"a b\", \"/x y\"]") else { panic!() };
    assert_eq!((copy.is_add, copy.sources, copy.destination.as_str()), (true, vec!["a b".to_owned()], "/x y"));
    let Instruction::Copy(copy) = one("COPY <<'a b' <<c /d/\nx\na b\ny\nc\n") else { panic!() };
    assert_eq!(copy.heredocs.len(), 2);
    assert!(error("COPY a").contains("at least two arguments"));
    assert!(error("COPY --from=$x a b").contains("cannot hold a variable"));
}

#[test]
fn healthchecks_and_triggers_are_checked() {
    let Instruction::Healthcheck(Some(check)) = one("HEALTHCHECK --interval=5s --retries=3 CMD curl x") else {
        panic!()
    };
    assert_eq!((check.interval, check.retries), (5_000_000_000, 3));
    assert_eq!(check.command, Command::Shell("curl x".into()));
    assert_eq!(one("HEALTHCHECK NONE"), Instruction::Healthcheck(None));
    assert!(error("HEALTHCHECK curl").contains("Unknown type \"curl\""));
    assert!(error("HEALTHCHECK --interval=5 CMD x").contains("invalid --interval=5"));
    assert_eq!(one("ONBUILD RUN a b"), Instruction::Onbuild("RUN a b".into()));
    assert!(error("ONBUILD FROM a").contains("FROM isn't allowed as an ONBUILD trigger"));
    assert!(error("ONBUILD RNU a").contains("unknown instruction: RNU"));
    assert!(error("SHELL x").contains("SHELL requires the arguments to be in JSON form"));
    assert_eq!(one("CMD"), Instruction::Cmd(Command::Shell(String::new())));
    assert!(error("WORKDIR").contains("WORKDIR requires exactly one argument"));
}

#[test]
fn lint_rules_fire_where_they_should() {
    for (text, expected) in [
        ("FROM a\nCMD x", vec!["JSONArgsRecommended"]),
        ("FROM a\nCMD [\"x\"]", vec![]),
        ("FROM a as b\nRUN x", vec!["FromAsCasing"]),
        ("FROM a AS B", vec!["StageNameCasing"]),
        ("FROM a AS b\nFROM a AS b", vec!["DuplicateStageName"]),
        ("FROM a AS scratch", vec!["ReservedStageName"]),
        ("FROM a\nrun x\nRUN y", vec!["ConsistentInstructionCasing"]),
        ("FROM a\nENV a b", vec!["LegacyKeyValueFormat"]),
        ("FROM a\nMAINTAINER me", vec!["MaintainerDeprecated"]),
        ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]", vec!["MultipleInstructionsDisallowed"]),
        ("FROM a\nARG DB_PASSWORD", vec!["SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV PUBLIC_KEY=x", vec![]),
        ("FROM a\nEXPOSE 80/TCP", vec!["ExposeProtoCasing"]),
        ("FROM a\nEXPOSE 1:2", vec!["ExposeInvalidFormat"]),
        ("FROM --platform=linux/amd64 a", vec!["FromPlatformFlagConstDisallowed"]),
        ("# check=skip=JSONArgsRecommended\nFROM a\nCMD x", vec![]),
        ("# check=skip=all\nFROM a\nCMD x\nMAINTAINER m", vec![]),
    ] {
        assert_eq!(rules(text), expected, "{text:?}");
    }
}
