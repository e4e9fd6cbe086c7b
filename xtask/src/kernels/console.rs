//! What a guest said: read from its console, which kernel messages and tests share.

use std::collections::BTreeMap;

use serde::Serialize;

/// In front of what the guest says about itself, in `init.sh` and in `tests/packet/verifier.rs`.
const MARK: &str = "lb-guest: ";

/// What came of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    /// `uname -r`.
    pub(super) release: Option<String>,
    /// Whether the kernel took every program; unknown when the guest did not come so far.
    pub(super) loads: Option<bool>,
    /// Instructions that the verifier walked, by program; since 5.16 the kernel tells.
    pub(super) verified: BTreeMap<String, u32>,
    /// What the programs do without on this kernel.
    pub(super) switched_off: Vec<String>,
    /// What else was not as it should be.
    pub(super) trouble: Vec<String>,
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that did not, by name.
    pub(super) failed: Vec<String>,
    /// Whether it came to its end.
    pub(super) ended: bool,
    /// What the packet tests exited with.
    #[serde(skip)]
    status: Option<String>,
}

impl Said {
    /// Takes a line of the console.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some((_, said)) = line.split_once(MARK) {
            let (what, value) = said.split_once(' ').unwrap_or((said, ""));
            match what {
                "kernel" => self.release = Some(value.to_owned()),
                "loads" => self.loads = Some(value == "0"),
                "off" => self.switched_off.push(value.to_owned()),
                "trouble" => self.trouble.push(value.to_owned()),
                "verified" => {
                    let number = value.split_once(' ').and_then(|(name, n)| Some((name, n.parse().ok()?)));
                    self.verified.extend(number.map(|(name, n)| (name.to_owned(), n)));
                }
                "tests" => {
                    self.ended = true;
                    self.status = Some(value.to_owned());
                }
                _ => {}
            }
            return;
        }
        // Before, the one test that loads was run: it is among the others again.
        if self.loads.is_none() {
            return;
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|test| test.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            let passed = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(" passed"));
            self.passed = passed.and_then(|number| number.parse().ok()).unwrap_or_default();
        }
    }

    /// Whether all is well: programs loaded, tests run, none failed.
    pub(super) fn is_good(&self) -> bool {
        self.loads == Some(true)
            && self.status.as_deref() == Some("0")
            && self.failed.is_empty()
            && self.passed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(console: &str) -> Said {
        let mut said = Said::default();
        console.lines().for_each(|line| said.line(line));
        said
    }

    const GOOD: &str = "\
[    2.1] a message of the kernel\r
lb-guest: kernel 5.10.0-32-cloud-amd64\r
test verifier::the_kernel_takes_every_program ... lb-guest: verified lb_balance 4321\r
lb-guest: off the coarse clock\r
ok\r
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 43 filtered out; finished in 0.52s\r
lb-guest: loads 0\r
test nat::padding_is_not_payload ... ok\r
test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 60.12s\r
lb-guest: tests 0\r
";

    #[test]
    fn a_good_guest_says_everything() {
        let said = said(GOOD);
        assert!(said.is_good() && said.ended);
        assert_eq!(said.release.as_deref(), Some("5.10.0-32-cloud-amd64"));
        assert_eq!((said.passed, said.failed.len()), (41, 0));
        assert_eq!(said.verified, BTreeMap::from([("lb_balance".into(), 4321)]));
        assert_eq!(said.switched_off, ["the coarse clock"]);
    }

    #[test]
    fn failed_tests_are_named() {
        let console = GOOD
            .replace("padding_is_not_payload ... ok", "padding_is_not_payload ... FAILED")
            .replace("ok. 41 passed; 0 failed", "FAILED. 40 passed; 1 failed")
            .replace("tests 0", "tests 101");
        let said = said(&console);
        assert!(!said.is_good() && said.ended);
        assert_eq!((said.passed, said.failed), (40, vec!["nat::padding_is_not_payload".to_owned()]));
    }

    #[test]
    fn a_guest_that_stops_half_way_is_not_good() {
        for end in ["lb-guest: kernel", "lb-guest: loads", "lb-guest: tests"] {
            let console = GOOD.split(end).next().unwrap();
            let said = said(console);
            assert!(!said.is_good() && !said.ended, "{end}");
        }
        assert!(!said(&GOOD.replace("41 passed", "0 passed")).is_good(), "no test is no success");
        assert!(!said(&GOOD.replace("loads 0", "loads 101")).is_good());
        assert!(!said(&GOOD.replace("tests 0", "tests 139")).is_good(), "tests that crash at the end");
    }
}
