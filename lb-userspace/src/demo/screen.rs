//! Where the demonstration is drawn: lines that stay, and below them a panel that is drawn again and again.
//!
//! The panel needs a terminal that is large enough; without one there are only the lines. Colours are what
//! [`anstream`] says: none in pipes, with `NO_COLOR`, or with `--no-color`.

use super::view;
use anstream::{AutoStream, ColorChoice};
use std::io::{IsTerminal, Write, stdout};

/// Smallest terminal that has room for the panel.
const SMALLEST: (u16, u16) = (80, 20);

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Terminals that know it show everything until the end at once, without flicker; others ignore it.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";

/// Standard output. Dropping it leaves the cursor as it was.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    color: bool,
    panel: Vec<String>,
}

impl Screen {
    /// The screen of this process.
    pub(super) fn new() -> Self {
        let out = stdout();
        let color = AutoStream::choice(&out) != ColorChoice::Never;
        let known = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { live: out.is_terminal() && known && size() >= Some(SMALLEST), color, panel: Vec::new() }
    }

    /// Whether the panel is shown.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Columns.
    pub(super) fn width(&self) -> usize {
        usize::from(size().map_or(SMALLEST.0, |(width, _)| width))
    }

    /// Writes a line that stays.
    pub(super) fn line(&mut self, line: &str) {
        self.lines(&[line.to_owned()]);
    }

    /// Writes lines that stay.
    pub(super) fn lines(&mut self, lines: &[String]) {
        let mut text = self.erased();
        for line in lines {
            text.push_str(&self.shown(line));
            text.push('\n');
        }
        text.push_str(&self.drawn());
        self.write(&text);
    }

    /// Shows a panel in the place of the one before. Nothing without a terminal.
    pub(super) fn panel(&mut self, lines: Vec<String>) {
        if !self.live {
            return;
        }
        let mut text = self.erased();
        self.panel = lines;
        text.push_str(&self.drawn());
        self.write(&text);
    }

    /// Takes the panel away.
    pub(super) fn clear(&mut self) {
        let text = self.erased();
        self.panel.clear();
        self.write(&text);
    }

    fn erased(&self) -> String {
        match self.panel.len() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    fn drawn(&self) -> String {
        self.panel.iter().map(|line| format!("{}\n", self.shown(line))).collect()
    }

    fn shown(&self, line: &str) -> String {
        if self.color { line.to_owned() } else { anstream::adapter::strip_str(line).to_string() }
    }

    /// Whoever reads may have gone away, `| head` for example: the demonstration ends in order all the same.
    fn write(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = match (self.live, self.panel.is_empty()) {
            (false, _) => write!(out, "{text}"),
            (true, false) => write!(out, "{BEGIN}{HIDE_CURSOR}{text}{END}"),
            (true, true) => write!(out, "{BEGIN}{text}{SHOW_CURSOR}{END}"),
        };
        let _ = out.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.panel.is_empty() {
            // What was last seen stays.
            self.panel.clear();
            self.write("");
        }
    }
}

fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size().map(|(width, height)| (width.0, height.0))
}

/// The words of the story, on a screen.
impl Screen {
    /// A step begins.
    pub(super) fn step(&mut self, number: usize, title: &str) {
        self.lines(&[String::new(), view::step(number, title)]);
    }

    /// A command that is run.
    pub(super) fn command(&mut self, command: &str) {
        let lines = view::command(command, self.width());
        self.lines(&lines);
    }

    /// Something that came out as it must.
    pub(super) fn good(&mut self, text: &str) {
        self.line(&view::good(text));
    }

    /// Something to know.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&view::note(text));
    }
}
