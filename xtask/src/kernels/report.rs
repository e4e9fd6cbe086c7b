//! The table of what came of each kernel, and the same as JSON.

use serde::Serialize;

use super::console::Said;
use super::packet::LEFT_OUT;

/// What came of one kernel.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) series: String,
    /// Debian's version of it.
    pub(super) version: String,
    pub(super) good: bool,
    pub(super) seconds: u64,
    #[serde(flatten)]
    pub(super) said: Said,
}

/// The table.
pub(super) fn table(rows: &[Row]) -> String {
    let head = ["kernel", "loads", "packet tests", "time", "switched off"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(cells));
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |cells: &[String; 5]| {
        let padded: Vec<_> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let mut text = line(&lines[0]);
    text.push_str(&line(&widths.map(|width| "-".repeat(width))));
    text.extend(lines[1..].iter().map(line));
    text
}

fn cells(row: &Row) -> [String; 5] {
    let said = &row.said;
    let loads = match said.loads {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "not tried",
    };
    let tests = match (said.passed, said.failed.len()) {
        (0, 0) => "not run".into(),
        (passed, 0) => format!("{passed} passed"),
        (passed, failed) => format!("{passed} passed, {failed} FAILED"),
    };
    let off = if said.switched_off.is_empty() { "nothing".into() } else { said.switched_off.join("; ") };
    let off = if said.loads == Some(true) { off } else { "unknown".into() };
    [row.version.clone(), loads.into(), tests, format!("{} s", row.seconds), off]
}

/// What the table has no room for: failed tests, other trouble, and which tests were left out.
pub(super) fn notes(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let failed = row.said.failed.iter().map(|test| format!("{test} failed"));
        for note in failed.chain(row.said.trouble.iter().cloned()) {
            text.push_str(&format!("{}: {note}\n", row.series));
        }
    }
    for (test, why) in LEFT_OUT {
        text.push_str(&format!("left out everywhere: {test}…: {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(series: &str, lines: &[&str]) -> Row {
        let mut said = Said::default();
        lines.iter().for_each(|line| said.line(line));
        Row {
            series: series.into(),
            version: format!("{series}.1-1"),
            good: said.is_good(),
            seconds: 61,
            said,
        }
    }

    #[test]
    fn the_table_says_what_loads_what_passes_and_what_is_off() {
        let rows = [
            row(
                "5.10",
                &["lb-guest: off a clock", "lb-guest: loads 0", "test result: ok. 40 passed; 0 failed"],
            ),
            row("6.1", &["lb-guest: loads 101", "lb-guest: tests 1"]),
            row(
                "6.12",
                &["lb-guest: loads 0", "test nat::x ... FAILED", "test result: FAILED. 39 passed; 1 failed"],
            ),
        ];
        assert_eq!(
            table(&rows),
            "\
| kernel   | loads | packet tests        | time | switched off |
| -------- | ----- | ------------------- | ---- | ------------ |
| 5.10.1-1 | yes   | 40 passed           | 61 s | a clock      |
| 6.1.1-1  | NO    | not run             | 61 s | unknown      |
| 6.12.1-1 | yes   | 39 passed, 1 FAILED | 61 s | nothing      |
"
        );
        assert!(notes(&rows).starts_with("6.12: nat::x failed\nleft out everywhere: "));
    }

    #[test]
    fn json_has_everything_in_one_object_a_kernel() {
        let json = serde_json::to_value(row("6.1", &["lb-guest: kernel 6.1.0"])).unwrap();
        assert_eq!(
            (&json["series"], &json["release"], &json["good"]),
            (&"6.1".into(), &"6.1.0".into(), &false.into())
        );
    }
}
