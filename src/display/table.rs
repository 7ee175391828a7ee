//! Tables of text with aligned columns.

use std::fmt;

/// A table with a header; columns are as wide as their widest cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with the given column names, all columns aligned on the left.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        let header: Vec<String> = header.into_iter().map(Into::into).collect();
        Self { right: vec![false; header.len()], header, rows: Vec::new() }
    }

    /// Aligns the given columns on the right, as numbers want.
    pub fn right_aligned(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for column in columns {
            self.right[column] = true;
        }
        self
    }

    /// Appends a row. Missing cells at its end are empty.
    ///
    /// # Panics
    /// If the row has more cells than the header.
    pub fn push<S: Into<String>>(&mut self, row: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = row.into_iter().map(Into::into).collect();
        assert!(row.len() <= self.header.len(), "more cells than columns");
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.header]);
            cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        for (i, row) in [&self.header, &rule].into_iter().chain(&self.rows).enumerate() {
            let mut line = String::new();
            for ((cell, &width), &right) in row.iter().zip(&widths).zip(&self.right) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                line += &if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            }
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["name", "value"]).right_aligned([1]);
        table.push(["α", "1"]);
        table.push(["longer", "1000"]);
        table.push(["x"]);
        assert_eq!(table.to_string(), "name    value\n------  -----\nα           1\nlonger   1000\nx");
    }
}
