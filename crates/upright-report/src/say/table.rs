//! A table, written as CSV with every digit, and as Markdown and HTML for a reader.

use std::fmt::Write;

use upright_core::metrics::Spread;

/// Rows under named columns.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Name of its files, without the ending.
    pub(crate) name: &'static str,
    /// The title.
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
    /// Each row has one cell per column.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Indices of rows that are not arms, such as the start. They are never the best.
    pub(crate) references: Vec<usize>,
    /// Indices of arms that do not compete. They are never the best either.
    pub(super) aside: Vec<usize>,
    /// The group of each row. Rows of one group are compared with each other; empty if all rows
    /// are.
    pub(crate) groups: Vec<usize>,
    /// Rows and columns of cells that are highlighted by a rule of the table.
    pub(crate) marked: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Heading above the name, shared by several columns; empty for none.
    pub(crate) group: String,
    pub(crate) name: String,
    /// Whether small or large numbers are better; the best number is highlighted.
    pub(crate) better: Option<Better>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Small,
    Large,
}

#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    /// A value, and the number of decimals shown.
    Number(f64, usize),
    /// A mean with its standard error, and the number of decimals shown.
    Spread(Spread, usize),
    /// Not measured.
    Missing,
}

impl Column {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            group: String::new(),
            name: name.into(),
            better: None,
        }
    }

    pub(crate) fn of(group: &str, name: impl Into<String>, better: Option<Better>) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            better,
        }
    }
}

impl Cell {
    pub(crate) fn spread(spread: Option<Spread>, decimals: usize) -> Self {
        spread.map_or(Self::Missing, |spread| Self::Spread(spread, decimals))
    }

    pub(crate) fn number(number: Option<f64>, decimals: usize) -> Self {
        number.map_or(Self::Missing, |number| Self::Number(number, decimals))
    }

    fn value(&self) -> Option<f64> {
        match self {
            Self::Number(value, _) => Some(*value),
            Self::Spread(spread, _) => Some(spread.mean),
            Self::Text(_) | Self::Missing => None,
        }
    }

    /// The cell's text as a reader sees it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value, decimals) => fixed(*value, *decimals),
            // A single run has no error, and the error of a count that is equal in all runs is 0.
            Self::Spread(
                Spread {
                    mean,
                    error: Some(error),
                },
                decimals,
            ) if *error > 0.0 || *decimals > 0 => {
                format!("{} ± {error:.decimals$}", fixed(*mean, *decimals))
            }
            Self::Spread(Spread { mean, .. }, decimals) => fixed(*mean, *decimals),
            Self::Missing => "–".into(),
        }
    }
}

/// Formats a number with `decimals` decimals and a true minus sign. A number that rounds to 0 has
/// no minus sign.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.trim_matches(['0', '.']).is_empty() => digits.to_owned(),
        Some(digits) => format!("\u{2212}{digits}"),
        None => text,
    }
}

impl Table {
    pub(crate) fn new(name: &'static str, title: impl Into<String>, columns: Vec<Column>) -> Self {
        Self {
            name,
            title: title.into(),
            columns,
            rows: Vec::new(),
            references: Vec::new(),
            aside: Vec::new(),
            groups: Vec::new(),
            marked: Vec::new(),
        }
    }

    /// Whether a row has the best value of a column. A column whose values are all equal has none.
    pub(crate) fn is_best(&self, row: usize, column: usize) -> bool {
        if self.marked.contains(&(row, column)) {
            return true;
        }
        let Some(better) = self.columns[column].better else {
            return false;
        };
        let sign = if better == Better::Small { 1.0 } else { -1.0 };
        let group = self.groups.get(row);
        let aside = |row: &usize| self.references.contains(row) || self.aside.contains(row);
        let contends = |row: &usize| !aside(row) && self.groups.get(*row) == group;
        if !contends(&row) {
            return false;
        }
        let rows = (0..self.rows.len()).filter(contends);
        let values: Vec<f64> = rows
            .filter_map(|row| self.rows[row][column].value())
            .map(|x| sign * x)
            .collect();
        let (best, worst) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(b, w), x| {
                (b.min(*x), w.max(*x))
            });
        best < worst
            && self.rows[row][column]
                .value()
                .is_some_and(|x| sign * x == best)
    }

    /// Comma-separated values. A mean and its error are two columns; a missing cell is empty.
    pub(crate) fn csv(&self) -> String {
        let spreads: Vec<bool> = (0..self.columns.len())
            .map(|column| {
                let is_spread = |row: &Vec<Cell>| matches!(row[column], Cell::Spread(..));
                self.rows.iter().any(is_spread)
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: Vec<String>| {
            let _ = writeln!(
                text,
                "{}",
                cells
                    .iter()
                    .map(|cell| quoted(cell))
                    .collect::<Vec<_>>()
                    .join(",")
            );
        };
        let mut header = Vec::new();
        for (i, column) in self.columns.iter().enumerate() {
            let name = [&column.group[..], &column.name]
                .into_iter()
                .filter(|part| !part.is_empty());
            let name = name.collect::<Vec<_>>().join(" ");
            header.push(name.clone());
            if spreads[i] {
                header.push(format!("{name} error"));
            }
        }
        line(header);
        for row in &self.rows {
            let mut cells = Vec::new();
            for (i, cell) in row.iter().enumerate() {
                cells.push(match cell {
                    Cell::Text(text) => text.clone(),
                    Cell::Number(value, _) => value.to_string(),
                    Cell::Spread(spread, _) => spread.mean.to_string(),
                    Cell::Missing => String::new(),
                });
                if spreads[i] {
                    let error = if let Cell::Spread(spread, _) = cell {
                        spread.error
                    } else {
                        None
                    };
                    cells.push(error.map_or_else(String::new, |error| error.to_string()));
                }
            }
            line(cells);
        }
        text
    }

    /// A Markdown table below its title, with the best value of each column in bold.
    pub(crate) fn markdown(&self) -> String {
        let safe = |text: &str| {
            text.replace('\\', "\\\\")
                .replace('|', "\\|")
                .replace(['\n', '\r'], " ")
        };
        let name = |column: &Column| {
            let parts = [&column.group[..], &column.name]
                .into_iter()
                .filter(|part| !part.is_empty());
            safe(&parts.collect::<Vec<_>>().join(", "))
        };
        let mut text = format!("{}\n\n", safe(&self.title));
        let names: Vec<String> = self.columns.iter().map(name).collect();
        let _ = writeln!(text, "| {} |", names.join(" | "));
        let side = |i: usize| if self.is_numeric(i) { "---:" } else { "---" };
        let sides: Vec<&str> = (0..self.columns.len()).map(side).collect();
        let _ = writeln!(text, "|{}|", sides.join("|"));
        for (r, row) in self.rows.iter().enumerate() {
            let cell = |(c, cell): (usize, &Cell)| {
                let shown = safe(&cell.shown());
                if self.is_best(r, c) {
                    format!("**{shown}**")
                } else {
                    shown
                }
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }

    /// Whether a column holds numbers.
    pub(crate) fn is_numeric(&self, column: usize) -> bool {
        self.rows
            .iter()
            .all(|row| !matches!(row[column], Cell::Text(_)))
    }
}

/// Whether a cell's text is too long for a narrow column.
pub(crate) fn is_long(cell: &Cell) -> bool {
    matches!(cell, Cell::Text(text) if text.len() > 60)
}

/// Quotes a CSV field where needed (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = vec![
            Column::new("arm"),
            Column::of("fit", "loss", Some(Better::Small)),
            Column::new("steps"),
        ];
        let mut table = Table::new("t", "A | title", columns);
        let spread = |mean, error| Cell::Spread(Spread { mean, error }, 3);
        table.rows.push(vec![
            Cell::Text("a, \"b\"".into()),
            spread(0.5, Some(0.25)),
            Cell::Number(-7.0, 0),
        ]);
        table.rows.push(vec![
            Cell::Text("c|d".into()),
            spread(1.0 / 3.0, None),
            Cell::Missing,
        ]);
        table
    }

    #[test]
    fn csv_keeps_every_digit_and_quotes() {
        let csv = "arm,fit loss,fit loss error,steps\n\"a, \"\"b\"\"\",0.5,0.25,-7\nc|d,0.3333333333333333,,\n";
        assert_eq!(table().csv(), csv);
    }

    #[test]
    fn markdown_is_a_table_with_the_best_in_bold() {
        let markdown = "A \\| title\n\n| arm | fit, loss | steps |\n|---|---:|---:|\n\
                        | a, \"b\" | 0.500 ± 0.250 | −7 |\n| c\\|d | **0.333** | – |\n";
        assert_eq!(table().markdown(), markdown);
    }

    #[test]
    fn nothing_is_below_0_by_no_digit() {
        let shown = [-0.000_4, -0.000_6, -0.0, 0.0, -1.25].map(|value| fixed(value, 3));
        assert_eq!(
            shown,
            ["0.000", "\u{2212}0.001", "0.000", "0.000", "\u{2212}1.250"]
        );
        assert_eq!(
            (fixed(-0.4, 0), fixed(-10.0, 0)),
            ("0".into(), "\u{2212}10".into())
        );
        let spread = Spread {
            mean: -0.000_1,
            error: Some(0.000_2),
        };
        assert_eq!(Cell::Spread(spread, 3).shown(), "0.000 ± 0.000");
        // Equal runs have an error of 0; an error of 0 is not shown for a count.
        let equal = Spread::of(&[4.0, 4.0]);
        assert_eq!(
            [0, 1].map(|decimals| Cell::Spread(equal, decimals).shown()),
            ["4", "4.0 ± 0.0"]
        );
    }

    #[test]
    fn a_column_of_equal_values_has_no_best() {
        let mut table = table();
        table.rows[0][1] = Cell::Number(1.0 / 3.0, 3);
        assert!((0..2).all(|row| !table.is_best(row, 1)));
        // Rows of other groups and rows that do not compete are not compared either.
        let mut table = self::table();
        table.groups = vec![0, 1];
        assert!(!table.is_best(1, 1));
        (table.groups, table.references) = (vec![], vec![0]);
        assert!(!table.is_best(1, 1));
        (table.references, table.aside) = (vec![], vec![1]);
        assert!((0..2).all(|row| !table.is_best(row, 1)));
    }
}
