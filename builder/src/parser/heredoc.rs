//! Where an instruction's line announces heredocs: `<<EOF`, `<<-EOF`, `<<'EOF'`, `3<<EOF`.

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The delimiter, unquoted.
    pub(crate) name: String,
    /// `<<-`: leading tabs are dropped.
    pub(crate) strip_tabs: bool,
    /// The delimiter was not quoted: variables in the body are expanded.
    pub(crate) expand: bool,
    /// The body, every line with its newline.
    pub(crate) content: String,
}

/// More heredocs than this in one instruction are an error.
const MAX_HEREDOCS: usize = 100;

/// The heredocs `line` announces, in order, their bodies still empty. A `<<` inside quotes or with something other
/// than a file descriptor's number before it is none. `None` where there are too many.
pub(super) fn announced(line: &str, escape: char) -> Option<Vec<Heredoc>> {
    let mut found = Vec::new();
    let chars: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut quote: Option<char> = None;
    // Whether only digits stand between here and the last white space.
    let mut word_start = true;
    while let Some(&c) = chars.get(at) {
        match quote {
            Some(open) if c == open => quote = None,
            Some('"') if c == escape => at += 1,
            Some(_) => {}
            None if c == '"' || c == '\'' => (quote, word_start) = (Some(c), false),
            None if c == escape => (at, word_start) = (at + 1, false),
            None if c == '<' && chars.get(at + 1) == Some(&'<') => {
                let after = at + 2;
                if word_start && let Some((heredoc, end)) = delimiter(&chars, after) {
                    found.push(heredoc);
                    at = end;
                    continue;
                }
                while chars.get(at + 1) == Some(&'<') {
                    at += 1;
                }
                word_start = false;
            }
            None => word_start = c.is_whitespace() || (word_start && c.is_ascii_digit()),
        }
        at += 1;
    }
    (found.len() <= MAX_HEREDOCS).then_some(found)
}

/// The delimiter that starts at `at`, and where it ends.
fn delimiter(chars: &[char], mut at: usize) -> Option<(Heredoc, usize)> {
    let strip_tabs = chars.get(at) == Some(&'-');
    at += usize::from(strip_tabs);
    let (mut name, mut expand) = (String::new(), true);
    let mut quote: Option<char> = None;
    while let Some(&c) = chars.get(at) {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => name.push(c),
            None if c == '"' || c == '\'' => (quote, expand) = (Some(c), false),
            None if c == '\\' => {
                expand = false;
                at += 1;
                name.extend(chars.get(at));
            }
            None if c.is_whitespace() || ">|&;()".contains(c) => break,
            None if c == '<' => return None,
            None => name.push(c),
        }
        at += 1;
    }
    let whole = quote.is_none() && !name.is_empty();
    whole.then(|| (Heredoc { name, strip_tabs, expand, content: String::new() }, at.min(chars.len())))
}
