//! Columns as Docker's tables have them: at least ten wide, three spaces between.

const LEAST: usize = 10;
const BETWEEN: usize = 3;

/// Rows of cells to lines; the last cell of a row is not padded.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    render_with(rows, LEAST, BETWEEN)
}

/// `render` with other widths.
pub(crate) fn render_with(rows: &[Vec<String>], least: usize, between: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![least; columns];
    for row in rows {
        let padded = row.len().saturating_sub(1);
        for (width, cell) in widths.iter_mut().zip(row.iter().take(padded)) {
            *width = (*width).max(cell.chars().count().saturating_add(between));
        }
    }
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if i.saturating_add(1) < row.len() {
                let width = widths.get(i).copied().unwrap_or(0);
                let fill = width.saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', fill));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [["A", "LONG NAME", "C"], ["a much longer cell", "b", "c"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            super::render(&rows),
            "A                    LONG NAME   C\na much longer cell   b           c\n"
        );
        assert_eq!(super::render(&[]), "");
    }
}
