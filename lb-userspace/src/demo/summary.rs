//! The end of the demonstration: a table of its phases, numbers, and a verdict. Pure, as [`super::view`].

use super::ledger::{Books, Judgement, Outage, Phase};
use super::topology::{BACKENDS, backend_name};
use super::view::{distribution, duration, thousands};
use owo_colors::OwoColorize;
use std::time::Duration;

/// What came of it all.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// What the clients saw.
    pub(super) books: Books,
    /// Losses, judged.
    pub(super) judgement: Judgement,
    /// The stop of a backend.
    pub(super) outage: Option<Outage>,
    /// How long there was no agent.
    pub(super) without_agent: Option<Duration>,
    /// Packets dropped for a wrong checksum, in all namespaces.
    pub(super) checksum_errors: u64,
    /// What went wrong besides losses.
    pub(super) faults: Vec<String>,
}

impl Summary {
    /// Whether all was as it must be.
    pub(super) fn good(&self) -> bool {
        self.judgement.faults.is_empty() && self.checksum_errors == 0 && self.faults.is_empty()
    }

    /// The table, the numbers and the verdict.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!(
                "  {}",
                format!(
                    "{:<16}{:>8}{:>13}{:>11}{:>11}{:>10}{:>7}",
                    "PHASE", "TOOK", "CONNECTIONS", "REQUESTS", "DATAGRAMS", "SLOWEST", "LOST"
                )
                .dimmed()
            ),
        ];
        lines.extend(self.books.phases.iter().map(|phase| self.phase(phase)));
        lines.push(String::new());
        lines.extend(self.numbers());
        lines.push(String::new());
        lines.extend(self.verdict());
        lines
    }

    fn phase(&self, phase: &Phase) -> String {
        let took = phase.ended.map_or(Duration::ZERO, |ended| ended - phase.began);
        let lost = match self.books.lost_in(phase, self.outage) {
            (0, 0) => format!("{:>7}", "0").green().to_string(),
            (excused, 0) => format!("{excused:>7}").yellow().to_string(),
            (excused, faults) => format!("{:>7}", excused + faults).red().to_string(),
        };
        format!(
            "  {:<16}{:>8}{:>13}{:>11}{:>11}{:>10}{lost}",
            phase.name,
            format!("{:.1} s", took.as_secs_f64()),
            thousands(phase.opened.iter().sum()),
            thousands(phase.requests),
            thousands(phase.datagrams),
            format!("{} ms", phase.slowest.as_millis()),
        )
    }

    fn numbers(&self) -> Vec<String> {
        let books = &self.books;
        let mut lines = vec![
            number(
                "Traffic",
                &format!(
                    "{} connections, {} over IPv4 and {} over IPv6",
                    thousands(books.opened.iter().sum()),
                    thousands(books.families[0]),
                    thousands(books.families[1]),
                ),
            ),
            number(
                "",
                &format!(
                    "{} requests, {:.1} MB that came back byte by byte",
                    thousands(books.answered.iter().sum()),
                    books.bytes as f64 / 1e6,
                ),
            ),
        ];
        if let Some(even) = books.phases.first().filter(|phase| phase.shares().is_some()) {
            let expected = 100.0 / BACKENDS as f64;
            let measured = distribution(even.opened);
            lines.push(number("Distribution", &format!("{measured}   expected {expected:.1}% each")));
        }
        if let Some(outage) = self.outage {
            let took = duration(outage.detected - outage.stopped);
            lines.push(number("Failover", &format!("{took} until nothing new went to the stopped backend")));
            lines.push(number(
                "",
                &format!(
                    "{} connections ended with it, {} attempts met it before that",
                    self.judgement.with_backend.len(),
                    self.judgement.before_detection.len(),
                ),
            ));
        }
        if let Some(without) = self.without_agent {
            lines.push(number("No agent", &format!("for {}, and traffic went on", duration(without))));
        }
        lines.push(number("Checksums", &format!("{} wrong, in all namespaces", self.checksum_errors)));
        lines
    }

    fn verdict(&self) -> Vec<String> {
        if self.good() {
            let stopped = if self.outage.is_some() { " but what was on the stopped backend" } else { "" };
            return vec![format!(
                "  {} {}",
                "✓".green().bold(),
                format!("Nothing was lost{stopped}.").bold()
            )];
        }
        let losses = self.judgement.faults.len();
        let mut lines = Vec::new();
        if losses > 0 {
            let title = format!("{losses} lost without an excuse:");
            lines.push(format!("  {} {}", "✗".red().bold(), title.bold()));
            lines.extend(self.judgement.faults.iter().take(8).map(|loss| {
                let on =
                    loss.backend.map_or_else(String::new, |backend| format!(" on {}", backend_name(backend)));
                let when = self.when(loss.began);
                format!("      {when}: {:?} of {:?}{on}: {}", loss.what, loss.family, loss.why)
            }));
            if losses > 8 {
                lines.push(format!("      and {} more", losses - 8));
            }
        }
        if self.checksum_errors > 0 {
            let text = format!("{} packets with a wrong checksum", self.checksum_errors);
            lines.push(format!("  {} {}", "✗".red().bold(), text.bold()));
        }
        lines.extend(self.faults.iter().map(|fault| format!("  {} {}", "✗".red().bold(), fault.bold())));
        lines
    }

    /// In which phase something was, and when.
    fn when(&self, instant: std::time::Instant) -> String {
        let phase = self.books.phases.iter().rev().find(|phase| phase.began <= instant);
        phase.map_or_else(
            || "before the first phase".to_owned(),
            |phase| format!("{} + {}", phase.name, duration(instant - phase.began)),
        )
    }
}

fn number(name: &str, text: &str) -> String {
    format!("  {:<14}{text}", name.bold())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::{Family, Ledger, Loss, What};
    use crate::demo::view::tests::plain;
    use std::time::Instant;

    fn summary() -> Summary {
        let ledger = Ledger::default();
        ledger.phase("steady");
        for backend in 0..BACKENDS {
            ledger.opened(backend, Family::V4, Instant::now());
        }
        ledger.end();
        let books = ledger.snapshot();
        let stopped = books.phases[0].began;
        Summary {
            books,
            judgement: Judgement::default(),
            outage: Some(Outage { backend: 1, stopped, detected: stopped + Duration::from_millis(412) }),
            without_agent: Some(Duration::from_secs(3)),
            checksum_errors: 0,
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_good_end_says_so() {
        let text = plain(summary().lines()).join("\n");
        for part in [
            "4 connections, 4 over IPv4 and 0 over IPv6",
            "b4 25.0%   expected 25.0% each",
            "412 ms until nothing new went to the stopped backend",
            "✓ Nothing was lost but what was on the stopped backend.",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(summary().good());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than a terminal:\n{text}");
    }

    #[test]
    fn a_bad_end_names_each_loss() {
        let mut bad = summary();
        let now = Instant::now();
        bad.judgement.faults.push(Loss {
            what: What::Connection,
            backend: Some(0),
            family: Family::V6,
            began: now,
            noticed: now,
            why: "connection reset".to_owned(),
        });
        bad.checksum_errors = 2;
        bad.faults.push("the agent did not adopt".to_owned());
        let text = plain(bad.lines()).join("\n");
        for part in ["✗ 1 lost", "Connection of V6 on b1: connection reset", "2 packets", "did not adopt"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!bad.good());
        bad.faults.clear();
        bad.judgement.faults.clear();
        assert!(!bad.good(), "a wrong checksum alone is bad enough");
    }
}
