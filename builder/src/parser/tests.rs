#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

fn document(text: &str) -> Document {
    parse(&Containerfile::from_text("Containerfile", text)).unwrap()
}

fn error(text: impl Into<Vec<u8>>) -> String {
    parse(&Containerfile::from_text("Containerfile", text)).unwrap_err().to_string()
}

/// `KEYWORD|--flag…|arguments` of each instruction.
fn check(text: &str, expected: &[&str]) {
    let shown: Vec<String> = document(text)
        .nodes
        .iter()
        .map(|node| {
            let flags = node.flags.iter().map(|f| match &f.value {
                Some(value) => format!("--{}={value}|", f.name),
                None => format!("--{}|", f.name),
            });
            format!("{}|{}{}", node.keyword, flags.collect::<String>(), node.arguments)
        })
        .collect();
    assert_eq!(shown, expected, "{text:?}");
}

#[test]
fn instructions_flags_and_arguments_are_split() {
    check("FROM a\nRUN  x y \n", &["FROM|a", "RUN|x y"]);
    check("\u{feff}FROM a\r\nRUN x\r\n", &["FROM|a", "RUN|x"]);
    check("# c\n\n  FROM a\n  # c\nrun b", &["FROM|a", "run|b"]);
    check("COPY --from=x --chown=1:2 a b", &["COPY|--from=x|--chown=1:2|a b"]);
    check("RUN --mount=type=bind,\"source=a b\" -- --x", &["RUN|--mount=type=bind,source=a b|--x"]);
    check("COPY --link a b", &["COPY|--link|a b"]);
    check("FROM\ta", &["FROM|a"]);
    check("WORKDIR", &["WORKDIR|"]);
}

#[test]
fn lines_are_continued_over_comments_and_blanks() {
    check("RUN a \\\n  b", &["RUN|a   b"]);
    check("RUN a && \\\n# why\n   # indented\n b", &["RUN|a &&  b"]);
    check("RUN a \\\n\n b", &["RUN|a  b"]);
    check("RUN a \\  \t\n b", &["RUN|a  b"]);
    check("RUN a\\\\\nRUN b", &["RUN|a\\\\", "RUN|b"]);
    check("RUN a \\", &["RUN|a"]);
    check("# escape=`\nRUN a `\n b\nCOPY c:\\x d\\", &["RUN|a  b", "COPY|c:\\x d\\"]);
    assert_eq!(document("RUN a \\\n\n b").warnings[0].rule, "NoEmptyContinuation");
    assert_eq!(document("FROM a\nRUN b \\\n c\nCMD d").nodes[1].span, Span { first: 2, last: 3 });
}

#[test]
fn directives_stand_first() {
    assert_eq!(document("# syntax=docker/dockerfile:1\n# ESCAPE = `\nFROM a").directives.escape, '`');
    assert_eq!(document("# hello\n# escape=`\nFROM a").directives.escape, '\\');
    assert_eq!(document("# check=skip=A,B;error=true\nFROM a").directives.skipped_rules, ["A", "B"]);
    assert!(error("# escape=x\nFROM a").contains("Containerfile:1: invalid escape token"));
    assert!(error("# escape=`\n# escape=`\nFROM a").contains("Containerfile:2: only one escape"));
}

#[test]
fn json_that_does_not_parse_is_shell_form() {
    assert_eq!(document("CMD [\"a\", \"b c\"]").nodes[0].json, Some(vec!["a".into(), "b c".into()]));
    assert_eq!(document("CMD []").nodes[0].json, Some(vec![]));
    for shell in ["CMD ['a']", "CMD [1]", "CMD [\"a\"] x", "CMD a", "CMD [ -f x ] && y"] {
        assert_eq!(document(shell).nodes[0].json, None, "{shell}");
    }
}

#[test]
fn heredocs_are_read_to_their_delimiter() {
    let node = &document("RUN <<EOF\necho $x\n\n# kept\nEOF\nCMD x").nodes[0];
    assert_eq!(node.heredocs[0].content, "echo $x\n\n# kept\n");
    assert_eq!(node.span, Span { first: 1, last: 5 });
    let document = document("COPY <<a <<-'b' /x/\n1\na\n\t2\n\tb\nRUN cat <<E > /x\nx\r\nE\n");
    let bodies: Vec<_> = document.nodes.iter().flat_map(|n| &n.heredocs).collect();
    assert_eq!((bodies[0].content.as_str(), bodies[0].expand), ("1\n", true));
    assert_eq!((bodies[1].content.as_str(), bodies[1].expand), ("2\n", false));
    assert_eq!(bodies[2].content, "x\n");
    assert_eq!(document.nodes[1].arguments, "cat <<E > /x");
    assert!(error("FROM a\nRUN <<EOF\nx").contains("Containerfile:2: unterminated heredoc <<EOF"));
}

#[test]
fn only_words_that_start_with_the_operator_announce_a_heredoc() {
    let count = |line: &str| heredoc::announced(line, '\\').unwrap().len();
    for (line, expected) in [
        ("cat <<EOF", 1),
        ("cat <<EOF>/x", 1),
        ("cat <<EOF | sh", 1),
        ("cat 3<<EOF", 1),
        ("cat <<a <<b", 2),
        ("cat <<<word", 0),
        ("echo '<<EOF'", 0),
        ("echo \"a <<EOF\"", 0),
        ("echo \\<<EOF", 0),
        ("echo $((1<<2))", 0),
        ("echo $((1 << 2))", 0),
        ("x<<EOF", 0),
        ("cat <<\"a b\"", 1),
        ("cat <<'a", 0),
    ] {
        assert_eq!(count(line), expected, "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_name_their_line() {
    assert!(error(b"FROM a\nRUN \xff\n".to_vec()).contains("Containerfile:2: not valid UTF-8"));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "([A-Z]{2,4} |[ -~]|\\\\|<<|\n|\"|\\PC){0,200}") {
        let _ = parse(&Containerfile::from_text("Containerfile", text));
    }
}
