//! `cargo xtask tidy`: documents name what the code has, files stay short, no test is switched off.
//!
//! A document that is not there is one that names nothing. Documents rot where nobody compares them; these are the comparisons that need no judgement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use lb_common::abi::names::{MAPS, PROGRAMS};
use lb_common::reason::Reason;

use crate::shell::{cargo, root};

/// A reader's patience. Most files are half of that.
const LINES: usize = 600;
/// Kinds of files that people write here.
const WRITTEN: [&str; 6] = ["rs", "md", "toml", "sh", "yml", "service"];
/// In two parts, or this file would be found.
const IGNORED_TEST: &str = concat!("#[", "ignore");

/// Prints every problem.
///
/// # Errors
/// When there is one, or a file cannot be read.
pub(crate) fn run() -> Result<()> {
    let files = written_files(root())?;
    let mut problems = Vec::new();
    for (path, text) in &files {
        problems.extend(file_problems(path, text));
    }
    let text_of = |wanted: &str| {
        let found = files.iter().find(|(path, _)| path == Path::new(wanted));
        found.map(|(_, text)| text.as_str()).unwrap_or_default()
    };
    let documents: Vec<_> = files.iter().filter(|(path, _)| has_extension(path, "md")).collect();
    for (path, text) in &documents {
        problems.extend(link_problems(root(), path, text));
    }

    let names = MAPS.iter().chain(&PROGRAMS).copied();
    problems.extend(missing("ARCHITECTURE.md", text_of("ARCHITECTURE.md"), names, str::to_owned));
    let verbs = match help() {
        Ok(help) => verbs(&help),
        Err(error) => {
            problems.push(format!("{error:#}"));
            Vec::new()
        }
    };
    if verbs.is_empty() {
        problems.push("`lb --help` lists no commands: README.md cannot be compared with them".into());
    }
    let listed = verbs.iter().map(String::as_str);
    problems.extend(missing("README.md", text_of("README.md"), listed, |verb| format!("lb {verb}")));
    let all = documents.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    problems.extend(missing("the documents' tables", &all, reasons, |reason| format!("| `{reason}` |")));

    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} places to tidy up, listed above", problems.len());
    }
    println!(
        "{} files, {} maps and programs, {} commands, {} reasons: all in order",
        files.len(),
        MAPS.len() + PROGRAMS.len(),
        verbs.len(),
        Reason::ALL.len()
    );
    Ok(())
}

/// What is wrong with a file by itself.
fn file_problems(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > LINES {
        problems.push(format!("{}: {lines} lines, {LINES} is the limit: split it by idea", path.display()));
    }
    if has_extension(path, "rs") {
        let ignored = text.lines().enumerate().filter(|(_, line)| line.contains(IGNORED_TEST));
        problems.extend(ignored.map(|(index, _)| {
            format!("{}:{}: a test that never runs: repair or remove it", path.display(), index + 1)
        }));
    }
    problems
}

/// Links of a document to files that are not there.
fn link_problems(root: &Path, path: &Path, text: &str) -> Vec<String> {
    let folder = root.join(path.parent().unwrap_or(Path::new("")));
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':') && !target.contains(char::is_whitespace))
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("{}: links to {target}, which does not exist", path.display()))
        .collect()
}

/// The names that `text` (of `document`) does not show in the form that `shown` gives them.
fn missing<'a>(
    document: &str,
    text: &str,
    names: impl Iterator<Item = &'a str>,
    shown: impl Fn(&str) -> String,
) -> Vec<String> {
    names
        .map(shown)
        .filter(|form| !contains_word(text, form))
        .map(|form| format!("{document}: {form} is missing"))
        .collect()
}

/// Whether `word` is in `text` and not merely the beginning or end of a longer name.
fn contains_word(text: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(in_name) && !after.is_some_and(|c| in_name(c) || c == '-')
    })
}

/// The commands that clap's help lists.
fn verbs(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| line.trim() != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        // Descriptions that were wrapped are further to the right.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

/// What `lb --help` prints; messages of a build that fails are shown as they come.
fn help() -> Result<String> {
    let mut lb = cargo();
    lb.args(["run", "--quiet", "--package", "lb-userspace", "--bin", "lb", "--", "--help"]);
    let output = lb.stderr(Stdio::inherit()).output().context("cannot start `lb --help`")?;
    if !output.status.success() {
        bail!("`lb --help` failed: nothing to compare README.md with");
    }
    String::from_utf8(output.stdout).context("`lb --help` prints text that is not UTF-8")
}

/// Every file of the kinds in [`WRITTEN`] below `root`, by its path from there.
fn written_files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if WRITTEN.iter().any(|extension| has_extension(&path, extension)) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push((path.strip_prefix(root).unwrap_or(&path).to_path_buf(), text));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_ignored_tests_are_found_with_their_place() {
        let long = "x\n".repeat(LINES + 1);
        assert_eq!(
            file_problems(Path::new("a.md"), &long),
            ["a.md: 601 lines, 600 is the limit: split it by idea"]
        );
        assert!(file_problems(Path::new("a.rs"), &"x\n".repeat(LINES)).is_empty());
        for rest in ["]", " = \"slow\"]"] {
            let found =
                file_problems(Path::new("a.rs"), &format!("#[test]\n{IGNORED_TEST}{rest}\nfn f() {{}}"));
            assert_eq!(found, ["a.rs:2: a test that never runs: repair or remove it"]);
        }
    }

    #[test]
    fn part_of_a_longer_name_is_not_the_name() {
        assert!(contains_word("the `EXPLAIN` map", "EXPLAIN"));
        assert!(!contains_word("lb_explainer, EXPLAIN_PROGRAM, REEXPLAIN", "EXPLAIN"));
        assert!(contains_word("EXPLAIN_PROGRAM and EXPLAIN", "EXPLAIN"));
        assert!(!contains_word("lb service-list", "lb service"));
        let found =
            missing("README.md", "`lb add`", ["add", "apply"].into_iter(), |verb| format!("lb {verb}"));
        assert_eq!(found, ["README.md: lb apply is missing"]);
    }

    #[test]
    fn commands_are_read_from_help() {
        let help = "Balances\n\nUsage: lb [OPTIONS] <COMMAND>\n\nCommands:\n  attach   Attach to an interface,\n           \
                    native or generic\n  service  Services\n  help     Print this\n\nOptions:\n  -v, --verbose\n";
        assert_eq!(verbs(help), ["attach", "service"]);
        assert!(verbs("Usage: lb").is_empty());
    }

    #[test]
    fn a_reason_counts_as_documented_by_a_row_of_a_table() {
        let row = |reason: &str| format!("| `{reason}` |");
        let found = missing("tables", "| `no-route` | no way back |", ["no-route", "icmp"].into_iter(), row);
        assert_eq!(found, ["tables: | `icmp` | is missing"]);
    }

    #[test]
    fn links_to_nothing_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("HERE.md"), "").unwrap();
        let text = "[a](HERE.md#part) [b](GONE.md) [c](https://example.org/x) [d](#local)";
        let found = link_problems(folder.path(), Path::new("README.md"), text);
        assert_eq!(found, ["README.md: links to GONE.md, which does not exist"]);
    }

    #[test]
    fn hidden_folders_and_build_output_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/b.rs", "target/c.rs", ".git/d.md", "e.bin"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let files = written_files(folder.path()).unwrap();
        assert_eq!(files, [(PathBuf::from("a/b.rs"), String::new())]);
    }
}
