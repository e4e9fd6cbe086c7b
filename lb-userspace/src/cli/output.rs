//! Where results go: tables for people, JSON for programs, colours only where they are seen.

use super::args::{Format, Global};
use anstream::{AutoStream, ColorChoice};
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Stdout, Write};

/// The reader of a pipe went away: no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output")]
pub(super) struct Closed;

/// Standard output.
pub(super) struct Out {
    stream: AutoStream<Stdout>,
    /// How results are printed.
    pub(super) format: Format,
    /// Somebody looks at it.
    pub(super) terminal: bool,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("format", &self.format).field("terminal", &self.terminal).finish()
    }
}

/// What colours are allowed.
pub(super) fn colors(no_color: bool) -> ColorChoice {
    if no_color { ColorChoice::Never } else { ColorChoice::Auto }
}

impl Out {
    /// Standard output, as the options say.
    pub(super) fn new(global: &Global) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { stream: AutoStream::new(stdout, colors(global.no_color)), format: global.output, terminal }
    }

    /// JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// More columns and exact numbers are wanted.
    pub(super) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Prints text as it is.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the output cannot be written.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> Result<()> {
        match write!(self.stream, "{text}").and_then(|()| self.stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
            result => Ok(result?),
        }
    }

    /// Prints a line.
    ///
    /// # Errors
    ///
    /// See [`Self::text`].
    pub(super) fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        self.text(format_args!("{text}\n"))
    }

    /// Prints JSON, one document.
    ///
    /// # Errors
    ///
    /// See [`Self::text`].
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(text)
    }

    /// Prints a table, each line behind `indent` spaces.
    ///
    /// # Errors
    ///
    /// See [`Self::text`].
    pub(super) fn table(&mut self, mut table: Table, indent: usize) -> Result<()> {
        if self.terminal && !self.is_wide() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        // Whether they are shown is decided by the stream.
        table.enforce_styling();
        let pad = " ".repeat(indent);
        for (index, line) in table.lines().enumerate() {
            let line = line.trim_end();
            // Bold here and not in the cells: padding inside of styles could not be trimmed.
            match index {
                0 => self.line(format_args!("{pad}{}", owo_colors::OwoColorize::bold(&line)))?,
                _ => self.line(format_args!("{pad}{line}"))?,
            }
        }
        Ok(())
    }
}

/// A table without lines, with these headings; those that end in `>` are aligned to the right.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_end_matches('>')));
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if heading.ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

/// A cell with a word for a state in the colour that people expect.
pub(super) fn state(text: impl fmt::Display, how: How) -> Cell {
    let cell = Cell::new(text);
    match how {
        How::Good => cell.fg(Color::Green),
        How::Warning => cell.fg(Color::Yellow),
        How::Bad => cell.fg(Color::Red),
        How::Plain => cell,
    }
}

/// How a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Good,
    Warning,
    Bad,
    Plain,
}

impl How {
    /// Text in the colour.
    pub(super) fn paint(self, text: &str) -> String {
        use owo_colors::OwoColorize;
        match self {
            Self::Good => text.green().to_string(),
            Self::Warning => text.yellow().to_string(),
            Self::Bad => text.red().to_string(),
            Self::Plain => text.to_owned(),
        }
    }
}

/// A share as a bar and a percentage.
pub(super) fn bar(share: f64) -> String {
    const WIDTH: f64 = 10.0;
    let filled = (share.clamp(0.0, 1.0) * WIDTH).round() as usize;
    format!("{}{} {:>5.1}%", "█".repeat(filled), "░".repeat(WIDTH as usize - filled), share * 100.0)
}

/// A number with a unit of bytes (IEC 80000-13): `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A large number with an SI prefix: `1.5 M`.
pub(super) fn number(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", units[unit])
}

/// A time span as people say it, to the second.
pub(super) fn span(seconds: u64) -> String {
    let text = humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
    // The two largest units say enough.
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(number(999.0), "999");
        assert_eq!(number(1_500_000.0), "1.5 M");
        assert_eq!(span(93_784), "1day 2h");
        assert_eq!(bar(0.25), "███░░░░░░░  25.0%");
    }
}
