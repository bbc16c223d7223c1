//! The language, a rule a row: a Containerfile, and what must come of it. What needs a process is in `run.rs`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::BuildRequest;
use common::Home;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// What is looked at afterwards, in all layers (the topmost that has the file counts) and in the config.
enum Want {
    /// A label's value.
    Label(&'static str, &'static str),
    /// A variable's value.
    Env(&'static str, &'static str),
    /// A file's content.
    File(&'static str, &'static str),
    /// A file's permission bits, owner and group.
    Owned(&'static str, u32, u32, u32),
    /// Nothing has that name.
    Absent(&'static str),
    /// A link's target.
    Link(&'static str, &'static str),
    /// What a JSON pointer into the config finds.
    Config(&'static str, &'static str),
    /// A warning's rule.
    Warns(&'static str),
}

use Want::{Absent, Config, Env, File, Label, Link, Owned, Warns};

type Row = (&'static str, &'static str, &'static [Want]);

const CONTEXT: [(&str, &str); 9] = [
    ("a.txt", "a"),
    ("b.txt", "b"),
    ("c.md", "c"),
    ("dir/x", "x"),
    ("dir/sub/y", "y"),
    ("dir/sub/z.log", "z"),
    ("sp ace", "space"),
    ("v1/lib/l", "lib"),
    ("v1/bin/b", "bin"),
];

fn home() -> Home {
    let home = Home::new();
    for (name, text) in CONTEXT {
        home.file(name, text);
    }
    symlink("a.txt", home.dir.path().join("context/link")).unwrap();
    fs::set_permissions(home.dir.path().join("context/dir"), fs::Permissions::from_mode(0o700)).unwrap();
    home
}

/// Builds each row in a context of its own kind and looks.
fn check(rows: &[Row], edit: impl Fn(&mut BuildRequest)) {
    let home = home();
    for (rule, text, wants) in rows {
        let outcome = home.try_build(text, |r| edit(r)).unwrap_or_else(|e| panic!("{rule}: {e} ({:?})", e.hint()));
        let image = home.engine.store().image(outcome.built.image_id.as_str()).unwrap();
        let layers = home.engine.store().image_layers(&image).unwrap();
        let find = |name: &str| layers.iter().rev().map(|l| l.join(name)).find(|p| fs::symlink_metadata(p).is_ok());
        let found = |name: &str| find(name).unwrap_or_else(|| panic!("{rule}: no {name}"));
        let config = serde_json::to_value(&image.config).unwrap();
        for want in *wants {
            match want {
                Label(name, value) => {
                    assert_eq!(image.config.config.labels.get(*name).map(String::as_str), Some(*value), "{rule}")
                }
                Env(name, value) => {
                    let line = format!("{name}={value}");
                    assert!(image.config.config.env.contains(&line), "{rule}: {line} in {:?}", image.config.config.env);
                }
                File(name, text) => assert_eq!(fs::read_to_string(found(name)).unwrap(), *text, "{rule}: {name}"),
                Owned(name, mode, uid, gid) => {
                    let meta = fs::symlink_metadata(found(name)).unwrap();
                    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (*mode, *uid, *gid), "{rule}: {name}");
                }
                Absent(name) => assert!(find(name).is_none(), "{rule}: {name} is there"),
                Link(name, target) => assert_eq!(fs::read_link(found(name)).unwrap(), Path::new(target), "{rule}"),
                Config(pointer, value) => {
                    let value: serde_json::Value = serde_json::from_str(value).unwrap();
                    assert_eq!(config.pointer(pointer).cloned().unwrap_or_default(), value, "{rule}: {pointer}");
                }
                Warns(name) => {
                    let rules: Vec<&str> = outcome.built.warnings.iter().map(|warning| warning.rule).collect();
                    assert!(rules.contains(name), "{rule}: {rules:?}");
                }
            }
        }
    }
}

#[test]
fn texts() {
    check(
        &[
            ("a BOM and CRLF", "\u{feff}FROM scratch\r\nLABEL a=b\r\n", &[Label("a", "b")]),
            ("syntax is accepted", "# syntax=docker/dockerfile:1.9\nFROM scratch\nLABEL a=b\n", &[Label("a", "b")]),
            ("escape", "# escape=`\nFROM scratch\nLABEL a=b `\n c=d e=\\x\n", &[Label("c", "d"), Label("e", "\\x")]),
            (
                "check skips",
                "# check=skip=MaintainerDeprecated\nFROM scratch\nMAINTAINER me\n",
                &[Config("/author", "\"me\"")],
            ),
            (
                "comments and blanks inside",
                "FROM scratch\nLABEL a=b \\\n# no\n\n  c=d\n",
                &[Label("c", "d"), Warns("NoEmptyContinuation")],
            ),
            ("keywords of any case", "from scratch\nlabel a=b\n", &[Label("a", "b")]),
            ("-- ends flags", "FROM scratch\nCOPY -- a.txt /x\n", &[File("x", "a")]),
            (
                "JSON with names that hold blanks",
                "FROM scratch\nCOPY [\"sp ace\", \"/to here/\"]\n",
                &[File("to here/sp ace", "space")],
            ),
            (
                "JSON that is none is shell form",
                "FROM scratch\nCMD [a, b]\n",
                &[Config("/config/Cmd", "[\"/bin/sh\",\"-c\",\"[a, b]\"]"), Warns("JSONArgsRecommended")],
            ),
            (
                "SHELL changes the shell form",
                "FROM scratch\nSHELL [\"/x\", \"-e\"]\nCMD y\n",
                &[Config("/config/Cmd", "[\"/x\",\"-e\",\"y\"]"), Config("/config/Shell", "[\"/x\",\"-e\"]")],
            ),
        ],
        |_| {},
    );
}

#[test]
fn heredocs() {
    check(
        &[
            (
                "a file",
                "FROM scratch\nCOPY <<EOF /f\none\ntwo\nEOF\n",
                &[File("f", "one\ntwo\n"), Owned("f", 0o644, 0, 0)],
            ),
            (
                "expanded by the builder",
                "FROM scratch\nENV V=v\nCOPY <<EOF /f\n$V ${V}x \\$V\nEOF\n",
                &[File("f", "v vx $V\n")],
            ),
            ("not where quoted", "FROM scratch\nENV V=v\nCOPY <<\"EOF\" /f\n$V\nEOF\n", &[File("f", "$V\n")]),
            ("tabs stripped", "FROM scratch\nCOPY <<-EOF /f\n\tone\n\t\ttwo\n\tEOF\n", &[File("f", "one\ntwo\n")]),
            (
                "several, named by their mark",
                "FROM scratch\nCOPY <<a <<b /d/\n1\na\n2\nb\n",
                &[File("d/a", "1\n"), File("d/b", "2\n")],
            ),
            (
                "beside files, with flags",
                "FROM scratch\nCOPY --chmod=600 --chown=5:6 <<h a.txt /d/\nt\nh\n",
                &[Owned("d/h", 0o600, 5, 6), File("d/a.txt", "a")],
            ),
            ("for ADD", "FROM scratch\nADD <<EOF /f\nx\nEOF\n", &[File("f", "x\n")]),
        ],
        |_| {},
    );
}

#[test]
fn variables() {
    check(
        &[
            (
                "one instruction sees one snapshot",
                "FROM scratch\nENV a=1\nENV a=2 b=$a\n",
                &[Env("a", "2"), Env("b", "1")],
            ),
            (
                "legacy forms",
                "FROM scratch\nENV k one two\nLABEL l three four\n",
                &[Env("k", "one two"), Label("l", "three four"), Warns("LegacyKeyValueFormat")],
            ),
            ("ARG with several names", "FROM scratch\nARG A=1 B=2 C\nLABEL l=$A$B${C:-3}\n", &[Label("l", "123")]),
            (
                "of ENV and ARG the later counts",
                "FROM scratch\nARG V=arg\nENV V=env\nLABEL l=$V\nARG V=again\nLABEL m=$V\nENV W=$V\nLABEL n=$W\n",
                &[Label("l", "env"), Label("m", "again"), Label("n", "again"), Env("V", "env")],
            ),
            ("--build-arg beats the default", "FROM scratch\nARG G=no\nLABEL l=$G\n", &[Label("l", "given")]),
            (
                "an ARG is the stage's and of those built on it",
                "FROM scratch AS a\nARG A=1 E=arg\nENV E=env\nARG E=later\nFROM a AS b\nLABEL l=$A m=$E\nARG A\nLABEL n=$A\n\
                 FROM b\nARG A=2\nLABEL o=$A\n",
                &[Label("l", "1"), Label("m", "env"), Label("n", "1"), Label("o", "2")],
            ),
            (
                "the value from before FROM beats an inherited one",
                "ARG A=global\nFROM scratch AS a\nARG A=own\nFROM a\nLABEL l=$A\nARG A\nLABEL m=$A\n",
                &[Label("l", "own"), Label("m", "global")],
            ),
            (
                "an ARG is not another stage's",
                "FROM scratch AS a\nARG A=1\nFROM scratch\nLABEL l=${A:-none}\n",
                &[Label("l", "none")],
            ),
            ("before FROM for FROM alone", "ARG A=1\nFROM scratch\nLABEL l=${A:-none}\n", &[Label("l", "none")]),
            ("until redeclared", "ARG A=1\nFROM scratch\nARG A\nLABEL l=$A\n", &[Label("l", "1")]),
            (
                "a stage inherits its base's environment",
                "FROM scratch AS a\nENV E=e\nFROM a\nLABEL l=$E\n",
                &[Label("l", "e"), Env("E", "e")],
            ),
            ("ARG defaults are expanded", "FROM scratch\nARG A=1\nARG B=${A}2\nLABEL l=$B\n", &[Label("l", "12")]),
            (
                "in ADD COPY WORKDIR",
                "FROM scratch\nARG D=d F=a\nWORKDIR /$D\nCOPY $F.txt $D/\nADD ${F}.txt /x$D\n",
                &[File("d/d/a.txt", "a"), File("xd", "a"), Config("/config/WorkingDir", "\"/d\"")],
            ),
            (
                "in EXPOSE USER VOLUME STOPSIGNAL",
                "FROM scratch\nARG P=80 U=7 V=/v S=INT\nEXPOSE $P/udp\nUSER $U\nVOLUME $V\nSTOPSIGNAL SIG$S\n",
                &[
                    Config("/config/ExposedPorts", "{\"80/udp\":{}}"),
                    Config("/config/User", "\"7\""),
                    Config("/config/Volumes", "{\"/v\":{}}"),
                    Config("/config/StopSignal", "\"SIGINT\""),
                ],
            ),
            (
                "never in CMD and ENTRYPOINT",
                "FROM scratch\nARG A=1\nCMD [\"$A\"]\nENTRYPOINT [\"$A\"]\n",
                &[Config("/config/Cmd", "[\"$A\"]"), Config("/config/Entrypoint", "[\"$A\"]")],
            ),
            (
                "prefixes, suffixes, replacements",
                "FROM scratch\nARG P=a/b/c.tar.gz\nLABEL l=${P##*/} m=${P%%.*} n=${P/b/X} o=${P//a/-}\n",
                &[Label("l", "c.tar.gz"), Label("m", "a/b/c"), Label("n", "a/X/c.tar.gz"), Label("o", "-/b/c.t-r.gz")],
            ),
            (
                "platforms are predeclared",
                "FROM --platform=$BUILDPLATFORM scratch\nARG TARGETOS TARGETSTAGE\nLABEL l=$TARGETOS m=$TARGETSTAGE\n",
                &[Label("l", "linux"), Label("m", "default")],
            ),
            ("an unset one warns", "FROM scratch\nLABEL l=x$NOPE\n", &[Label("l", "x"), Warns("UndefinedVar")]),
        ],
        |request| request.build_args = vec![("G".to_owned(), "given".to_owned())],
    );
}

#[test]
fn copying() {
    check(
        &[
            ("a file to a name", "FROM scratch\nCOPY a.txt /n\n", &[File("n", "a"), Owned("n", 0o644, 0, 0)]),
            ("into a folder by the slash", "FROM scratch\nCOPY a.txt /n/\n", &[File("n/a.txt", "a")]),
            ("into a folder that is there", "FROM scratch\nWORKDIR /n\nCOPY a.txt /n\n", &[File("n/a.txt", "a")]),
            ("several", "FROM scratch\nCOPY a.txt b.txt /n/\n", &[File("n/a.txt", "a"), File("n/b.txt", "b")]),
            (
                "globs",
                "FROM scratch\nCOPY [ab].tx? *.md /n/\n",
                &[File("n/a.txt", "a"), File("n/b.txt", "b"), File("n/c.md", "c")],
            ),
            (
                "a folder is its content",
                "FROM scratch\nCOPY dir /n\n",
                &[File("n/x", "x"), File("n/sub/y", "y"), Absent("n/dir")],
            ),
            ("globs that match nothing", "FROM scratch\nCOPY a.txt a.lock* /n/\n", &[File("n/a.txt", "a")]),
            ("nothing at all", "FROM scratch\nCOPY a.lock* /n/\n", &[Absent("n")]),
            (
                "and not its mode",
                "FROM scratch\nCOPY dir /n\nADD dir /m/\n",
                &[Owned("n", 0o755, 0, 0), Owned("m", 0o755, 0, 0)],
            ),
            (
                "nor its owner, which is --chown's",
                "FROM scratch\nCOPY --chown=5:6 --chmod=700 dir /n\n",
                &[Owned("n", 0o755, 5, 6)],
            ),
            (
                "relative to WORKDIR",
                "FROM scratch\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt ../up\n",
                &[File("w/a.txt", "a"), File("up", "b")],
            ),
            ("a link is what it leads to", "FROM scratch\nCOPY link /n\n", &[File("n", "a")]),
            ("but a link in a folder stays one", "FROM scratch\nCOPY . /n/\n", &[Link("n/link", "a.txt")]),
            (
                "--chown by numbers",
                "FROM scratch\nCOPY --chown=5:6 dir /n/\n",
                &[Owned("n/x", 0o644, 5, 6), Owned("n/sub", 0o755, 5, 6)],
            ),
            (
                "--chown by names of the image",
                "FROM scratch\nCOPY <<passwd <<group /etc/\napp:x:7:8::/:\npasswd\nweb:x:9:\ngroup\nCOPY --chown=app a.txt /n\nCOPY --chown=app:web a.txt /m\n",
                &[Owned("n", 0o644, 7, 8), Owned("m", 0o644, 7, 9)],
            ),
            (
                "--chmod in digits and letters",
                "FROM scratch\nCOPY --chmod=4751 a.txt /n\nCOPY --chmod=u+x,g=u,o-r a.txt /m\n",
                &[Owned("n", 0o4751, 0, 0), Owned("m", 0o770, 0, 0)],
            ),
            (
                "--exclude",
                "FROM scratch\nCOPY --exclude=**/*.log --exclude=x dir /n/\n",
                &[File("n/sub/y", "y"), Absent("n/x"), Absent("n/sub/z.log")],
            ),
            (
                "--parents",
                "FROM scratch\nCOPY --parents dir/sub/y a.txt /n/\n",
                &[File("n/dir/sub/y", "y"), File("n/a.txt", "a")],
            ),
            (
                "--parents with a pivot",
                "FROM scratch\nCOPY --parents v1/./lib/l /n/\n",
                &[File("n/lib/l", "lib"), Absent("n/v1")],
            ),
            ("--link", "FROM scratch\nCOPY --link a.txt /n/\n", &[File("n/a.txt", "a")]),
            (
                "--from a stage, an index, any case",
                "FROM scratch AS Src\nCOPY a.txt /f\nFROM scratch\nCOPY --from=src /f /n\nCOPY --from=0 f /m\n",
                &[File("n", "a"), File("m", "a")],
            ),
            (
                "through a link of the image, inside it",
                "FROM scratch\nCOPY <<EOF /real/f\nold\nEOF\nCOPY link /l\nCOPY a.txt /real/f\n",
                &[File("real/f", "a")],
            ),
        ],
        |_| {},
    );
}

#[test]
fn configs() {
    check(
        &[
            (
                "an empty command, and a WORKDIR of nothing",
                "FROM scratch\nWORKDIR /a\nWORKDIR $NOPE\nCMD\n",
                &[Config("/config/Cmd", "[\"/bin/sh\",\"-c\",\"\"]"), Config("/config/WorkingDir", "\"/a\"")],
            ),
            (
                "EXPOSE as others publish",
                "FROM scratch\nEXPOSE 8080:80 127.0.0.1:53:53/udp\n",
                &[Config("/config/ExposedPorts", "{\"80/tcp\":{},\"53/udp\":{}}"), Warns("ExposeInvalidFormat")],
            ),
            (
                "ENTRYPOINT clears the base's CMD",
                "FROM scratch AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n",
                &[Config("/config/Cmd", "null"), Config("/config/Entrypoint", "[\"e\"]")],
            ),
            (
                "but not the stage's own",
                "FROM scratch\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n",
                &[Config("/config/Cmd", "[\"c\"]")],
            ),
            (
                "WORKDIR adds up and belongs to the USER",
                "FROM scratch\nUSER 5:6\nWORKDIR /a\nWORKDIR b/../c\n",
                &[Config("/config/WorkingDir", "\"/a/c\""), Owned("a/c", 0o755, 5, 6)],
            ),
            (
                "EXPOSE ranges",
                "FROM scratch\nEXPOSE 1-3 5/UDP\n",
                &[
                    Config("/config/ExposedPorts", "{\"1/tcp\":{},\"2/tcp\":{},\"3/tcp\":{},\"5/udp\":{}}"),
                    Warns("ExposeProtoCasing"),
                ],
            ),
            (
                "HEALTHCHECK",
                "FROM scratch\nHEALTHCHECK --interval=1m30s --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD [\"x\"]\n",
                &[Config(
                    "/config/Healthcheck",
                    "{\"Test\":[\"CMD\",\"x\"],\"Interval\":90000000000,\"Timeout\":2000000000,\"StartPeriod\":3000000000,\"StartInterval\":4000000000,\"Retries\":5}",
                )],
            ),
            (
                "HEALTHCHECK NONE",
                "FROM scratch\nHEALTHCHECK NONE\n",
                &[Config("/config/Healthcheck/Test", "[\"NONE\"]")],
            ),
            (
                "VOLUME of both forms",
                "FROM scratch\nVOLUME [\"/a b\"]\nVOLUME /c /d\n",
                &[Config("/config/Volumes", "{\"/a b\":{},\"/c\":{},\"/d\":{}}")],
            ),
            (
                "ONBUILD waits for the child",
                "FROM scratch AS a\nONBUILD LABEL l=child\nONBUILD COPY a.txt /n\nFROM a\n",
                &[Label("l", "child"), File("n", "a"), Config("/config/OnBuild", "null")],
            ),
            (
                "MAINTAINER",
                "FROM scratch\nMAINTAINER Me <m@x>\n",
                &[Config("/author", "\"Me <m@x>\""), Warns("MaintainerDeprecated")],
            ),
        ],
        |_| {},
    );
}

/// Each rule with what breaks it, and the nearest thing that does not.
const LINT: &[(&str, &str, &str)] = &[
    ("StageNameCasing", "FROM scratch AS Big\n", "FROM scratch AS small\n"),
    ("FromAsCasing", "FROM scratch as x\n", "FROM scratch AS x\n"),
    ("NoEmptyContinuation", "FROM scratch\nLABEL a=b \\\n\n c=d\n", "FROM scratch\nLABEL a=b \\\n# c\n c=d\n"),
    ("ConsistentInstructionCasing", "FROM scratch\nlabel a=b\nLABEL c=d\n", "from scratch\nlabel a=b\nlabel c=d\n"),
    ("DuplicateStageName", "FROM scratch AS a\nFROM scratch AS a\n", "FROM scratch AS a\nFROM scratch AS b\n"),
    ("ReservedStageName", "FROM scratch AS context\n", "FROM scratch AS contexts\n"),
    ("JSONArgsRecommended", "FROM scratch\nCMD x\n", "FROM scratch\nCMD [\"x\"]\n"),
    ("MaintainerDeprecated", "FROM scratch\nMAINTAINER x\n", "FROM scratch\nLABEL maintainer=x\n"),
    ("UndefinedArgInFrom", "FROM scratch$NOPE\n", "ARG NOPE=\nFROM scratch$NOPE\n"),
    ("WorkdirRelativePath", "FROM scratch\nWORKDIR x\n", "FROM scratch\nWORKDIR /x\nWORKDIR y\n"),
    ("UndefinedVar", "FROM scratch\nLABEL a=$NOPE\n", "FROM scratch\nARG NOPE=1\nLABEL a=$NOPE\n"),
    ("UndefinedVar", "FROM scratch\nCOPY file$NOPE /x\n", "FROM scratch\nCOPY file${NOPE:-} /x\n"),
    ("UndefinedVar", "FROM scratch\nWORKDIR /x$NOPE\n", "FROM scratch\nENV PATH=/app:$PATH\n"),
    (
        "UndefinedVar",
        "FROM scratch AS a\nARG A=1\nFROM scratch\nLABEL l=$A\n",
        "FROM scratch AS a\nARG A=1 B\nFROM a\nLABEL l=$A$B\n",
    ),
    ("UndefinedVar", "FROM based\nLABEL a=$INHERIT\n", "FROM based\nLABEL a=$INHERITED\n"),
    ("UndefinedVar", "FROM scratch\nLABEL a=${BUILDARCH}\n", "FROM scratch\nARG BUILDARCH\nLABEL a=${BUILDARCH}\n"),
    (
        "MultipleInstructionsDisallowed",
        "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
        "FROM scratch\nCMD [\"a\"]\nFROM scratch\nCMD [\"b\"]\n",
    ),
    ("LegacyKeyValueFormat", "FROM scratch\nENV a b\n", "FROM scratch\nENV a=b\n"),
    (
        "RedundantTargetPlatform",
        "FROM --platform=$TARGETPLATFORM scratch\n",
        "FROM --platform=$BUILDPLATFORM scratch\n",
    ),
    ("SecretsUsedInArgOrEnv", "FROM scratch\nENV API_TOKEN=x\n", "FROM scratch\nENV PUBLIC_TOKEN=x\n"),
    ("SecretsUsedInArgOrEnv", "FROM scratch\nARG PASSWORD\n", "FROM scratch\nARG PASSAGE\n"),
    ("InvalidDefaultArgInFrom", "ARG BASE\nFROM $BASE\n", "ARG BASE=scratch\nFROM $BASE\n"),
    (
        "FromPlatformFlagConstDisallowed",
        "FROM --platform=linux/amd64 scratch\n",
        "FROM --platform=$BUILDPLATFORM scratch\n",
    ),
    ("CopyIgnoredFile", "FROM scratch\nCOPY hid* hidden /x/\n", "FROM scratch\nCOPY file /x\n"),
    ("InvalidBaseImagePlatform", "FROM foreign\n", "FROM based\n"),
    ("ExposeProtoCasing", "FROM scratch\nEXPOSE 80/TCP\n", "FROM scratch\nEXPOSE 80/tcp\n"),
    ("ExposeInvalidFormat", "FROM scratch\nEXPOSE 127.0.0.1:80:80\n", "FROM scratch\nEXPOSE 80-81\n"),
];

#[test]
fn lint() {
    let home = home();
    home.file(".dockerignore", "hidden\n");
    home.file("hidden", "");
    home.file("file", "");
    let base = |name: &str, text: &str, platform: Option<&str>| {
        let edit = |request: &mut BuildRequest| {
            request.tags = vec![name.parse().unwrap()];
            request.platform = platform.map(|text| text.parse().unwrap());
        };
        home.try_build(text, edit).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    base("based", "FROM scratch\nENV INHERITED=1\n", None);
    base("foreign", "FROM scratch\n", Some("linux/s390x"));
    let rules = |warnings: Vec<builder::Warning>| {
        let mut rules: Vec<&str> =
            warnings.iter().map(|warning| warning.rule).filter(|rule| !rule.is_empty()).collect();
        rules.sort_unstable();
        rules
    };
    for (rule, bad, good) in LINT {
        let build = |text: &str| {
            home.try_build(text, |request| request.build_args = vec![("BASE".to_owned(), "scratch".to_owned())])
        };
        let check = |text: &str| {
            let file = builder::Containerfile::from_text("Containerfile", text);
            let mut request = BuildRequest::new(home.dir.path().join("context"), file);
            request.build_args = vec![("BASE".to_owned(), "scratch".to_owned())];
            builder::check(Some(&home.engine), &request).map(|recipe| rules(recipe.warnings))
        };
        let checked = check(bad).unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert!(checked.contains(rule), "{rule}: {checked:?} of {bad}");
        let of_good = check(good).unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert!(!of_good.contains(rule), "{rule}: {of_good:?} of {good}");
        for directive in [format!("# check=skip={rule}\n"), "# check=skip=all\n".to_owned()] {
            let skipped = check(&format!("{directive}{bad}")).unwrap_or_else(|e| panic!("{rule}: {e}"));
            assert!(!skipped.contains(rule), "{rule} is skipped");
        }
        let failing = format!("# check=error=true\n{bad}");
        assert!(check(&failing).is_err(), "{rule} fails the check");
        // An ignored file, and a port with an address, the build itself refuses.
        if matches!(*rule, "CopyIgnoredFile" | "ExposeInvalidFormat") {
            continue;
        }
        assert!(build(&failing).is_err(), "{rule} fails the build");
        for text in [bad, good] {
            let built = build(text).unwrap_or_else(|e| panic!("{rule}: {e}")).built;
            assert_eq!(rules(built.warnings), check(text).unwrap_or_default(), "of the build and of --check: {text}");
        }
    }
}

#[test]
fn an_unset_variable_is_told_with_the_one_that_was_meant() {
    let outcome = home().build("FROM scratch\nENV VERSION=1\nLABEL a=$VERSON\n");
    let warnings: Vec<&str> = outcome.built.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, ["Usage of undefined variable '$VERSON' (did you mean $VERSION?)"]);
}
