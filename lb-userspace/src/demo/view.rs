//! What the demonstration looks like: pure functions from numbers to lines.
//!
//! Lines carry colours; [`super::screen`] takes them away where they are not wanted. No terminal here, no clock.

use super::topology::{BACKENDS, backend_name};
use owo_colors::OwoColorize;
use std::time::Duration;

/// The eighths of a block, for bars that move smoothly.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// Longest bar, in cells; the shortest is a quarter of it.
const LONGEST_BAR: usize = 40;
/// Cells of a row besides its bar.
const BESIDE_BAR: usize = 54;

/// What the balancer says of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Not known: nobody answers, or it was not checked yet.
    #[default]
    Unknown,
    /// Takes new connections.
    Up,
    /// Keeps its connections, takes no new ones.
    Draining,
    /// Does not answer its checks.
    Down,
}

/// A row of the live view.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// What the balancer says.
    pub(super) state: State,
    /// Share of the new connections of the last seconds, 0 to 1.
    pub(super) share: f64,
    /// Long-lived connections.
    pub(super) open: u64,
    /// Answered requests a second.
    pub(super) rate: f64,
}

/// The live view at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// What happens at present.
    pub(super) title: String,
    /// A row for each backend.
    pub(super) rows: [Row; BACKENDS],
    /// Answered requests since the beginning.
    pub(super) requests: u64,
    /// Losses since the beginning that nothing excuses.
    pub(super) lost: usize,
    /// Whether an agent runs.
    pub(super) agent: bool,
    /// Since the traffic began.
    pub(super) elapsed: Duration,
}

/// The live view.
pub(super) fn live(snapshot: &Snapshot, width: usize) -> Vec<String> {
    let cells = width.saturating_sub(BESIDE_BAR).clamp(LONGEST_BAR / 4, LONGEST_BAR);
    let mut lines = vec![
        String::new(),
        format!(
            "  {}  {}",
            snapshot.title.bold(),
            format!("{:.0} s", snapshot.elapsed.as_secs_f64()).dimmed()
        ),
        format!(
            "  {}",
            format!(
                "{:<20}{:<cells$}{:>7}{:>14}{:>10}",
                "", "new connections", "share", "connections", "req/s"
            )
            .dimmed()
        ),
    ];
    lines.extend(snapshot.rows.iter().enumerate().map(|(backend, row)| {
        format!(
            "  {:<5}{}{}{:>6.1}%{:>14}{:>10}",
            backend_name(backend).bold(),
            pad(&state(row.state), row.state.word().len(), 13),
            bar(row.share, cells, row.state),
            row.share * 100.0,
            row.open,
            thousands(row.rate.round() as u64)
        )
    }));
    let open: u64 = snapshot.rows.iter().map(|row| row.open).sum();
    let rate: f64 = snapshot.rows.iter().map(|row| row.rate).sum();
    let agent =
        if snapshot.agent { "agent running".green().to_string() } else { "no agent".red().to_string() };
    let lost = match snapshot.lost {
        0 => "0 lost".green().to_string(),
        lost => format!("{lost} lost").red().bold().to_string(),
    };
    lines.push(format!(
        "  {}  {}  {agent}  {}  {lost}",
        "all".bold(),
        format!("{open} connections, {} req/s", thousands(rate.round() as u64)).dimmed(),
        format!("{} requests", thousands(snapshot.requests)).dimmed(),
    ));
    lines
}

/// What is about to be seen.
pub(super) fn title(families: &str) -> Vec<String> {
    vec![
        String::new(),
        format!(
            "  {}  {}",
            "lb demo".bold(),
            format!("four backends behind one balancer, on {families}").dimmed()
        ),
    ]
}

/// Commands to try, each below what it does.
pub(super) fn hints(hints: &[(&str, String)]) -> Vec<String> {
    let mut lines = vec![String::new(), format!("  {}", "The network stays. Try:".bold()), String::new()];
    for (what, command) in hints {
        lines.push(format!("    {}", format!("# {what}").dimmed()));
        lines.push(format!("    {}", command.cyan()));
    }
    lines.push(String::new());
    lines
}

/// The heading of a step.
pub(super) fn step(number: usize, title: &str) -> String {
    format!("  {}  {}", number.cyan().bold(), title.bold())
}

/// A command that is run, broken before its options where the terminal ends, so that it can be copied as it is.
pub(super) fn command(command: &str, width: usize) -> Vec<String> {
    let room = width.saturating_sub(12).max(40);
    let mut rows: Vec<String> = Vec::new();
    let mut parts = command.split(" --");
    let first = parts.next().map(str::to_owned);
    for part in first.into_iter().chain(parts.map(|option| format!("--{option}"))) {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + part.chars().count() <= room => {
                row.push(' ');
                row.push_str(&part);
            }
            _ => rows.push(part),
        }
    }
    let last = rows.len() - 1;
    let row = |(number, row): (usize, String)| {
        let start = if number == 0 { format!("     {} ", "$".dimmed()) } else { "         ".to_owned() };
        let end = if number == last { "" } else { " \\" };
        format!("{start}{}{end}", row.cyan())
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// A command that is run, without the options that were seen before in another one.
pub(super) fn like_before(command: &str) -> String {
    let start = command.split_once(" --").map_or(command, |(start, _)| start);
    format!("     {} {} {}", "$".dimmed(), start.cyan(), "…".dimmed())
}

/// Something that came out as it must.
pub(super) fn good(text: &str) -> String {
    format!("     {} {text}", "✓".green())
}

/// Something to know.
pub(super) fn note(text: &str) -> String {
    format!("     {}", text.dimmed())
}

/// The distribution in a line, for logs.
pub(super) fn distribution(counts: [u64; BACKENDS]) -> String {
    match super::ledger::shares(counts) {
        None => "no new connections".to_owned(),
        Some(shares) => (0..BACKENDS)
            .map(|backend| format!("{} {:.1}%", backend_name(backend), shares[backend] * 100.0))
            .collect::<Vec<_>>()
            .join("   "),
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// A coloured dot and word. Its visible length is that of the word and two.
fn state(state: State) -> String {
    let text = format!("● {}", state.word());
    match state {
        State::Unknown => text.dimmed().to_string(),
        State::Up => text.green().to_string(),
        State::Draining => text.yellow().to_string(),
        State::Down => text.red().to_string(),
    }
}

/// Pads a text with colours in it, whose visible length is `length` and two.
fn pad(text: &str, length: usize, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(length + 2)))
}

/// A bar of `cells` cells. A whole bar is half of everything: with four backends each has half a bar.
fn bar(share: f64, cells: usize, state: State) -> String {
    let eighths = ((share * 2.0).clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let (whole, part) = (eighths / 8, EIGHTHS[eighths % 8]);
    let full = format!("{}{part}", "█".repeat(whole));
    let rest = "·".repeat(cells - whole - usize::from(!part.is_empty()));
    let full = match state {
        State::Up | State::Unknown => full.cyan().to_string(),
        State::Draining => full.yellow().to_string(),
        State::Down => full.red().to_string(),
    };
    format!("{full}{}", rest.dimmed())
}

/// `12345` is `12 345`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `0.41 s` or `12.3 s`, or milliseconds.
pub(super) fn duration(duration: Duration) -> String {
    match duration {
        short if short < Duration::from_secs(1) => format!("{} ms", short.as_millis()),
        long => format!("{:.1} s", long.as_secs_f64()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::demo) fn plain(lines: Vec<String>) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    fn snapshot() -> Snapshot {
        let row = |state, share, open| Row { state, share, open, rate: f64::from(open as u32) * 10.0 };
        Snapshot {
            title: "Traffic".to_owned(),
            rows: [
                row(State::Up, 0.5, 100),
                row(State::Down, 0.0, 0),
                row(State::Draining, 0.125, 50),
                row(State::Up, 0.375, 75),
            ],
            requests: 123_456,
            lost: 0,
            agent: true,
            elapsed: Duration::from_secs(12),
        }
    }

    #[test]
    fn a_bar_for_each_backend() {
        let lines = plain(live(&snapshot(), 200));
        let rows = &lines[3..7];
        assert!(rows[0].starts_with("  b1   ● up         "), "{rows:?}");
        assert_eq!(rows[0].matches('█').count(), LONGEST_BAR);
        assert_eq!(rows[1].matches('·').count(), LONGEST_BAR);
        assert_eq!(rows[2].matches('█').count(), LONGEST_BAR / 4);
        assert!(rows[1].contains("● down"));
        assert!(rows[2].contains("● draining"));
        assert!(rows[3].ends_with("37.5%            75       750"), "{rows:?}");
        assert!(lines[7].contains("225 connections, 2 250 req/s") && lines[7].contains("123 456 requests"));
        let lengths: Vec<_> = rows.iter().map(|row| row.chars().count()).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "not aligned: {lengths:?}");
    }

    #[test]
    fn bars_shrink_with_the_terminal() {
        for width in [80, 100] {
            let longest = plain(live(&snapshot(), width)).iter().map(|line| line.chars().count()).max();
            assert!(longest.unwrap() <= width, "{longest:?} in {width}");
        }
    }

    #[test]
    fn partial_cells_keep_the_length() {
        for share in 0..=100 {
            let bar = bar(f64::from(share) / 100.0, 20, State::Up);
            assert_eq!(anstream::adapter::strip_str(&bar).to_string().chars().count(), 20, "{share}%");
        }
    }

    #[test]
    fn long_commands_break_where_a_shell_goes_on() {
        let text =
            "lb service add web tcp://192.0.2.10:80 --backend 10.11.0.11:8080 --backend 10.11.0.12:8080";
        let rows = plain(command(text, 80));
        assert!(rows.len() > 1 && rows.iter().all(|row| row.chars().count() <= 80), "{rows:?}");
        assert!(rows[1..].iter().all(|row| row.trim_start().starts_with("--backend ")), "{rows:?}");
        let joined = rows.join("\n").replace("\\\n", "");
        assert_eq!(joined.split_whitespace().skip(1).collect::<Vec<_>>().join(" "), text);
        assert_eq!(plain(command("lb status", 80)), ["     $ lb status"]);
        assert_eq!(plain(vec![like_before(text)]), ["     $ lb service add web tcp://192.0.2.10:80 …"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(duration(Duration::from_millis(412)), "412 ms");
        assert_eq!(duration(Duration::from_millis(3040)), "3.0 s");
        assert_eq!(distribution([1, 0, 1, 2]), "b1 25.0%   b2 0.0%   b3 25.0%   b4 50.0%");
    }
}
