//! JSON for people: the same text, indented. Nothing is sorted or left out, as it would be on the way through values.

/// Indents a valid JSON text by four spaces a level, as docker does.
pub(crate) fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut level = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut characters = text.chars().filter(|c| !c.is_control() || *c == '\n').peekable();
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                out.push('"');
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|c| c.is_whitespace()).is_some() {}
                match characters.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        level += 1;
                        new_line(&mut out, level);
                    }
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                new_line(&mut out, level);
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, level);
            }
            ':' => out.push_str(": "),
            space if space.is_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, level: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", level.min(100)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays_and_strings_are_left_alone() {
        let text = r#"{"b":1, "a":[ ],"c":{"d":[1,"x, {\"y\": 2}\\"]}, "e" : {}}"#;
        let expected = "{\n    \"b\": 1,\n    \"a\": [],\n    \"c\": {\n        \"d\": [\n            1,\n            \"x, {\\\"y\\\": 2}\\\\\"\n        ]\n    },\n    \"e\": {}\n}";
        assert_eq!(indented(text), expected);
        assert_eq!(indented(expected), expected);
    }
}
