//! Columns of text, as docker prints them: padded by three spaces, never cut in a pipe.

/// A table being filled.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

/// Spaces between two columns.
const GAP: usize = 3;
/// A table of many long cells on a narrow terminal keeps at least so much of each line.
const MIN_WIDTH: usize = 20;

impl Table {
    /// A table with these column titles.
    pub(crate) fn new<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Table {
        Table { rows: vec![titles.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell.into())).collect());
    }

    /// The lines; cut to `width` columns where there is one.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let longest = |at: usize| self.rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| longest(at).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', widths[at] - cell.chars().count() + GAP));
                }
            }
            let line = line.trim_end();
            match width.map(|w| w.max(MIN_WIDTH)) {
                Some(width) if line.chars().count() > width => {
                    text.extend(line.chars().take(width - 1));
                    text.push('…');
                }
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}

/// As [`printable`] for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    let moves = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if moves(c) { '\u{fffd}' } else { c }).collect()
}

/// Without what would move the cursor: names and commands come from images.
pub(crate) fn printable(cell: &str) -> String {
    if cell.chars().any(char::is_control) {
        return cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    }
    cell.to_owned()
}

/// `text` in at most `limit` characters, the last an ellipsis where something was left out.
pub(crate) fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["ID", "NAME", "STATUS"]);
        table.row(["1", "a-long-name", "Up 2 minutes"]);
        table.row(["22", "b", ""]);
        table
    }

    #[test]
    fn columns_stand_three_apart() {
        assert_eq!(table().render(None), "ID   NAME          STATUS\n1    a-long-name   Up 2 minutes\n22   b\n");
    }

    #[test]
    fn a_terminal_is_not_overrun() {
        let text = table().render(Some(24));
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains('…'));
    }

    #[test]
    fn control_characters_stay_out() {
        let mut table = Table::new(["A"]);
        table.row(["x\u{1b}[2Jy\n"]);
        assert_eq!(table.render(None), "A\nx\u{fffd}[2Jy\u{fffd}\n");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("short", 5), "short");
        assert_eq!(ellipsis("longer", 5), "long…");
    }
}
