//! `--format`: what a listing's rows become.

use super::table::{Table, printable_lines};
use super::template::Template;
use crate::context::Context;
use crate::error::CliError;
use serde_json::Value;

/// A listing: rows of named values, of which a table shows some.
pub(crate) struct Listing {
    /// One object a row; its fields are what templates see.
    pub(crate) rows: Vec<Value>,
    /// The table's columns: title and field.
    pub(crate) columns: Vec<(&'static str, &'static str)>,
    /// Titles of further fields, for `table` templates.
    pub(crate) titles: &'static [(&'static str, &'static str)],
    /// The field that `-q` prints.
    pub(crate) id: &'static str,
}

impl Listing {
    /// Prints the listing as `--format` and `-q` say.
    pub(crate) fn print(&self, context: &mut Context, format: Option<&str>, quiet: bool) -> Result<(), CliError> {
        use std::io::Write;
        let mut text = self.render(format, quiet, context.width())?;
        if context.width().is_some() {
            // A template shows labels and commands as they are; a program that reads them shall have them so, a terminal not.
            text = printable_lines(&text);
        }
        Ok(context.out().write_all(text.as_bytes())?)
    }

    fn render(&self, format: Option<&str>, quiet: bool, width: Option<usize>) -> Result<String, CliError> {
        let format = format.filter(|f| !f.is_empty()).unwrap_or("table");
        if quiet && matches!(format, "table") {
            return Ok(self.rows.iter().map(|row| cell(row, self.id) + "\n").collect());
        }
        if format == "table" {
            let mut table = Table::new(self.columns.iter().map(|(title, _)| *title));
            for row in &self.rows {
                table.row(self.columns.iter().map(|(_, field)| cell(row, field)));
            }
            return Ok(table.render(width));
        }
        if format == "json" {
            return Ok(self.rows.iter().map(|row| format!("{row}\n")).collect());
        }
        if format == "raw" {
            return Err(CliError::flag("--format raw is not supported: use json, table or a template"));
        }
        match format.strip_prefix("table ").or_else(|| format.strip_prefix("table\\t")) {
            Some(template) => self.table(template, width),
            None => {
                let template = compile(format)?;
                let mut text = String::new();
                for row in &self.rows {
                    text.push_str(&template.render(row).map_err(template_error)?);
                    text.push('\n');
                }
                Ok(text)
            }
        }
    }

    /// `table {{.ID}}\t{{.Names}}`: the header is the template over the titles.
    fn table(&self, template: &str, width: Option<usize>) -> Result<String, CliError> {
        let template = compile(template.trim_start())?;
        let fields = self.rows.first().and_then(Value::as_object).map(|row| row.keys().cloned().collect::<Vec<_>>());
        let known = self.columns.iter().chain(self.titles.iter());
        let mut titles: serde_json::Map<String, Value> =
            fields.unwrap_or_default().into_iter().map(|f| (f.clone(), title(&f).into())).collect();
        titles.extend(known.map(|(title, field)| ((*field).to_owned(), Value::from(*title))));
        let split = |text: String| text.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let mut table = Table::new(split(template.render(&Value::Object(titles)).map_err(template_error)?));
        for row in &self.rows {
            table.row(split(template.render(row).map_err(template_error)?));
        }
        Ok(table.render(width))
    }
}

/// `CreatedAt` → `CREATED AT`.
fn title(field: &str) -> String {
    let mut text = String::new();
    let mut lower = false;
    for c in field.chars() {
        if c.is_uppercase() && lower {
            text.push(' ');
        }
        lower = c.is_lowercase();
        text.extend(c.to_uppercase());
    }
    text
}

fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Parses a `--format` template; `\t` and `\n` written out are a tab and a newline.
pub(crate) fn compile(format: &str) -> Result<Template, CliError> {
    Template::parse(&unescape(format)).map_err(template_error)
}

/// An unusable template is an error of exit code 1, as docker's.
pub(crate) fn template_error(error: super::template::TemplateError) -> CliError {
    CliError::new(error.to_string()).with_hint("a format is json, table, or a template such as '{{.ID}} {{.Names}}'")
}

/// Resolves `\t` and `\n` outside of `{{ }}`.
fn unescape(format: &str) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some(start) = rest.find("{{") {
        text.push_str(&rest[..start].replace("\\t", "\t").replace("\\n", "\n"));
        let end = rest[start..].find("}}").map_or(rest.len(), |end| start + end + 2);
        text.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    text + &rest.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(format: Option<&str>, quiet: bool, expected: &str) {
        let listing = Listing {
            rows: vec![
                json!({"ID": "1", "Names": "a", "CreatedAt": "x"}),
                json!({"ID": "2", "Names": "bb", "CreatedAt": "y"}),
            ],
            columns: vec![("CONTAINER ID", "ID"), ("NAMES", "Names")],
            titles: &[],
            id: "ID",
        };
        let made = listing.render(format, quiet, None).unwrap_or_else(|e| format!("error: {e}"));
        assert_eq!(made, expected, "{format:?}");
    }

    #[test]
    fn formats() {
        check(None, false, "CONTAINER ID   NAMES\n1              a\n2              bb\n");
        check(None, true, "1\n2\n");
        check(Some("{{.ID}}\\t{{.Names}}"), false, "1\ta\n2\tbb\n");
        check(Some("{{.ID}}"), true, "1\n2\n");
        check(Some("table {{.Names}}\\t{{.CreatedAt}}"), false, "NAMES   CREATED AT\na       x\nbb      y\n");
        check(
            Some("json"),
            false,
            "{\"CreatedAt\":\"x\",\"ID\":\"1\",\"Names\":\"a\"}\n{\"CreatedAt\":\"y\",\"ID\":\"2\",\"Names\":\"bb\"}\n",
        );
        check(Some("{{.Nope}}"), false, "error: template parsing error: map has no entry for key \"Nope\"");
        check(Some("{{join (split .ID \"x\") \"\\t\"}}|"), false, "1|\n2|\n");
    }
}
