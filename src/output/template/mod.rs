//! Go templates, as far as `--format` needs them: fields, pipes, variables, `if`, `with`, `range`, `index`, the
//! comparisons and docker's helpers, over JSON values.
//!
//! Three steps: [`parse`](self::parse) makes a tree of the text, [`eval`](self::eval) walks it, [`functions`] has what
//! can be called. Loops only run over what the data holds, so every template ends.

mod eval;
mod functions;
mod lexer;
mod parse;

use parse::Node;
use serde_json::Value;

/// Nesting of blocks and parentheses allowed in a template.
const MAX_DEPTH: usize = 64;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// What is wrong with a template or its use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("template parsing error: {0}")]
pub(crate) struct TemplateError(String);

impl Template {
    /// Parses a template; `\t` and `\n` written out count as a tab and a line's end.
    pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
        let nodes = parse::parse(text)?;
        Ok(Template { nodes })
    }

    /// Renders it over a value.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(text: &str) -> String {
        let data = json!({
            "ID": "abc", "Names": "/web", "N": 3, "F": 1.5, "On": true, "Off": false, "None": null, "Empty": "",
            "List": ["x", "y", "z"], "Numbers": [1, 2],
            "Labels": {"a": "1", "b.c": "2"},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "other": {"IPAddress": "10.0.0.1"}},
            "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": null},
            "State": {"Status": "running", "Pid": 42}
        });
        match Template::parse(text).and_then(|t| t.render(&data)) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn fields_and_text() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.ID}}", "abc"),
            ("<{{ .ID }}>", "<abc>"),
            ("{{.id}}", "abc"),
            ("{{.State.Status}} {{.State.Pid}}", "running 42"),
            ("{{.N}} {{.F}} {{.On}} {{.None}}", "3 1.5 true <no value>"),
            ("{{.List}}", "[x y z]"),
            ("{{.Labels}}", "map[a:1 b.c:2]"),
            ("a {{- .ID -}} b", "aabcb"),
            ("{{/* a comment */}}x", "x"),
            ("{{\"quoted \\\"text\\\"\"}} {{`raw \\n`}}", "quoted \"text\" raw \\n"),
            ("{{.Labels.nope}}", "<no value>"),
            ("{{1}} {{-2}} {{true}} {{'a'}}", "1 -2 true 97"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn control() {
        for (template, expected) in [
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if .Empty}}yes{{else if .Off}}off{{else}}no{{end}}", "no"),
            ("{{range .List}}{{.}},{{end}}", "x,y,z,"),
            ("{{range $i, $e := .List}}{{$i}}={{$e}} {{end}}", "0=x 1=y 2=z "),
            ("{{range $k, $v := .Networks}}{{$k}}:{{$v.IPAddress}} {{end}}", "bridge:172.17.0.2 other:10.0.0.1 "),
            ("{{range .Networks}}{{.IPAddress}} {{$.ID}} {{end}}", "172.17.0.2 abc 10.0.0.1 abc "),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{with .State}}{{.Pid}}{{end}}", "42"),
            ("{{with .Empty}}x{{else}}y{{end}}", "y"),
            ("{{$x := .N}}{{$x}}{{$x = 4}}{{$x}}", "34"),
            ("{{range .List}}{{if eq . \"y\"}}{{continue}}{{end}}{{.}}{{end}}", "xz"),
            ("{{range .List}}{{if eq . \"y\"}}{{break}}{{end}}{{.}}{{end}}", "x"),
            (
                "{{range $p, $c := .Ports}}{{$p}}->{{if $c}}{{(index $c 0).HostPort}}{{end}};{{end}}",
                "80/tcp->8080;90/tcp->;",
            ),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn calls() {
        for (template, expected) in [
            ("{{json .List}}", "[\"x\",\"y\",\"z\"]"),
            ("{{.State | json}}", "{\"Pid\":42,\"Status\":\"running\"}"),
            ("{{index .Labels \"b.c\"}}", "2"),
            ("{{index .Labels \"nope\"}}", ""),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{len .List}} {{len .ID}}", "3 3"),
            ("{{join .List \"-\"}}", "x-y-z"),
            ("{{range split \"a,b\" \",\"}}<{{.}}>{{end}}", "<a><b>"),
            ("{{upper .ID}} {{lower \"ABC\"}} {{title \"one two\"}}", "ABC abc One Two"),
            ("{{truncate .ID 2}} {{truncate .ID 9}} [{{pad .ID 1 2}}]", "ab abc [ abc  ]"),
            ("{{println .ID .N}}", "abc 3\n"),
            (
                "{{printf \"%s-%d %v %q %05d|%-5s|%5s|%.1f\" .ID .N .On .ID 42 \"l\" \"r\" .F}}",
                "abc-3 true \"abc\" 00042|l    |    r|1.5",
            ),
            (
                "{{eq .N 3}} {{ne .ID \"x\"}} {{lt 1 2}} {{ge 1 2}} {{eq .ID \"x\" \"abc\"}}",
                "true true true false true",
            ),
            ("{{and .On .ID}} {{or .Empty .ID}} {{not .On}}", "abc abc false"),
            ("{{slice .ID 1}} {{slice .ID 0 2}}", "bc ab"),
            ("{{.ID | printf \"%s/%s\" \"p\" | upper}}", "P/ABC"),
            ("{{if and .On (eq .State.Status \"running\")}}ok{{end}}", "ok"),
            ("{{.Label \"a\"}}", "1"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn errors_say_what() {
        for (template, words) in [
            ("{{.Nope}}", "map has no entry for key \"Nope\""),
            ("{{.ID.x}}", "can't evaluate field x"),
            ("{{nope .ID}}", "function \"nope\" not defined"),
            ("{{.ID", "unclosed action"),
            ("{{if .ID}}x", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{index .List 9}}", "index out of range: 9"),
            ("{{\"open}}", "unterminated"),
            ("{{len 3}}", "len of type"),
            ("{{}}", "missing value"),
            ("{{(.ID}}", "unclosed left paren"),
            ("{{.ID}} {{range .N}}x{{end}}", "range can't iterate over 3"),
            ("{{printf \"%d\" .ID}}", "%!d(abc)"),
            ("{{break}}", "{{break}} outside {{range}}"),
        ] {
            let made = render(template);
            assert!(made.contains(words), "{template}: {made}");
        }
        let deep = "{{if .ID}}".repeat(500);
        assert!(render(&deep).contains("nested too deeply"));
        let deep = format!("{{{{{}1}}}}", "(".repeat(500));
        assert!(render(&deep).contains("nested too deeply"));
    }
}
