//! Columns of text.

use crate::runner::console::Paint;

/// Rows below a heading; each column is as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is nothing below the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// As text, or for a pull request.
    pub fn render_as(&self, markdown: bool, paint: Paint) -> String {
        if markdown { self.render_markdown() } else { self.render(paint) }
    }

    /// As Markdown; columns of numbers end at the right.
    fn render_markdown(&self) -> String {
        let escaped =
            |cell: &String| cell.replace('\\', "\\\\").replace('|', "\\|").replace('*', "\\*").replace('_', "\\_");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let Some((heading, rows)) = self.rows.split_first() else { return String::new() };
        let is_number = |idx: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(idx)).filter(|cell| !cell.is_empty()).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit() || "+-−".contains(c)))
        };
        let rule = (0..heading.len()).map(|idx| if is_number(idx) { "---:" } else { "---" }.to_owned()).collect();
        let mut out = line(heading.iter().map(escaped).collect()) + &line(rule);
        for row in rows {
            out.push_str(&line(row.iter().map(escaped).collect()));
        }
        out
    }

    /// As text, the heading dimmed.
    pub fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|idx| {
                self.rows.iter().filter_map(|row| row.get(idx)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for (idx, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let line = cells.join("  ");
            let line = line.trim_end();
            out.push_str(&if idx == 0 { paint.dim(line) } else { line.to_owned() });
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["stage", "size"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["pretrain".to_owned(), "22 MiB".to_owned()]);
        assert_eq!(table.render(Paint(false)), "stage     size\na         1\npretrain  22 MiB\n");
    }

    #[test]
    fn markdown_keeps_cells_apart() {
        let mut table = Table::new(&["stage", "value"]);
        table.row(["a|b_c".to_owned(), "-0.5".to_owned()]);
        table.row(["d".to_owned(), "+1".to_owned()]);
        let markdown = table.render_as(true, Paint(true));
        assert_eq!(markdown, "| stage | value |\n| --- | ---: |\n| a\\|b\\_c | -0.5 |\n| d | +1 |\n");
    }
}
