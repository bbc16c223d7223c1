//! Shell patterns of `${v#p}` and its kin: `*`, `?` and escaped characters.

/// A parsed pattern.
pub(super) struct Pattern {
    items: Vec<Item>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Any,
    Many,
    Literal(char),
}

/// `text` as a pattern that matches just itself.
pub(super) fn literal(text: &str) -> String {
    text.chars().flat_map(|c| ['\\', c]).collect()
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Pattern {
        let mut items = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            items.push(match c {
                '*' => Item::Many,
                '?' => Item::Any,
                '\\' => Item::Literal(chars.next().unwrap_or('\\')),
                c => Item::Literal(c),
            });
        }
        items.dedup_by(|a, b| *a == Item::Many && *b == Item::Many);
        Pattern { items }
    }

    /// How many of `text`'s first characters it can match: the fewest or the most.
    fn prefix_len(items: &[Item], text: &[char], greedy: bool) -> Option<usize> {
        // reach[n]: the items so far match the first n characters exactly.
        let mut reach = vec![false; text.len() + 1];
        reach[0] = true;
        for item in items {
            let mut next = vec![false; text.len() + 1];
            let mut any_before = false;
            for n in 0..=text.len() {
                next[n] = match item {
                    Item::Many => {
                        any_before |= reach[n];
                        any_before
                    }
                    Item::Any => n > 0 && reach[n - 1],
                    Item::Literal(c) => n > 0 && reach[n - 1] && text[n - 1] == *c,
                };
            }
            reach = next;
        }
        if greedy { reach.iter().rposition(|r| *r) } else { reach.iter().position(|r| *r) }
    }

    pub(super) fn strip_prefix(&self, text: &str, greedy: bool) -> String {
        let chars: Vec<char> = text.chars().collect();
        let len = Self::prefix_len(&self.items, &chars, greedy).unwrap_or(0);
        chars[len..].iter().collect()
    }

    pub(super) fn strip_suffix(&self, text: &str, greedy: bool) -> String {
        let chars: Vec<char> = text.chars().rev().collect();
        let items: Vec<Item> = self.items.iter().rev().copied().collect();
        let len = Self::prefix_len(&items, &chars, greedy).unwrap_or(0);
        chars[len..].iter().rev().collect()
    }

    /// Replaces the first (or all) longest matches; None where the result would exceed `max_bytes`.
    pub(super) fn replace(&self, text: &str, with: &str, all: bool, max_bytes: usize) -> Option<String> {
        let chars: Vec<char> = text.chars().collect();
        // Each start costs a pass over the rest: square work needs a smaller bound than the text itself has.
        if chars.len() > 64 << 10 {
            return None;
        }
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at < chars.len() {
            let len = if done { None } else { Self::prefix_len(&self.items, &chars[at..], true) };
            match len.filter(|len| *len > 0) {
                Some(len) => {
                    out.push_str(with);
                    at += len;
                    done = !all;
                }
                None => {
                    out.push(chars[at]);
                    at += 1;
                }
            }
            if out.len() > max_bytes {
                return None;
            }
        }
        Some(out)
    }
}
