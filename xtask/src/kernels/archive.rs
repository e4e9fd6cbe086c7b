//! Debian's archive, asked through an apt state of our own under `target/kernels`: the machine's is only read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::listing::PATTERN;
use crate::shell::text;

/// Where kernels come from. What one of them no longer has, another may.
const SUITES: [&str; 6] = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// Of the package debian-archive-keyring: signs all suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long lists are taken for new.
const FRESH: Duration = Duration::from_hours(24);

/// An apt that knows [`SUITES`] and nothing of this machine.
pub(super) struct Archive {
    directory: PathBuf,
    debs: PathBuf,
}

impl Archive {
    /// An archive that keeps its lists and packages under `directory`.
    ///
    /// # Errors
    /// When this machine's apt knows no mirror of Debian, or nothing can be written.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let archive = Self { directory: directory.join("apt"), debs: directory.join("debs") };
        for part in ["lists/partial", "cache/archives/partial"] {
            create(&archive.directory.join(part))?;
        }
        create(&archive.debs)?;
        let mirror = mirror()?;
        // Written without a keyring where there is none: apt then takes those that it trusts.
        let signed =
            if Path::new(KEYRING).exists() { format!(" signed-by={KEYRING}") } else { String::new() };
        let sources =
            SUITES.map(|suite| format!("deb [arch=amd64{signed}] {mirror} {suite} main\n")).concat();
        write(&archive.directory.join("sources.list"), &sources)?;
        // Nothing is installed here.
        write(&archive.directory.join("status"), "")?;
        write(&archive.configuration(), &configuration(&archive.directory))?;
        Ok(archive)
    }

    /// Records of all kernels on offer.
    ///
    /// # Errors
    /// When apt fails.
    pub(super) fn kernels(&self) -> Result<String> {
        if !self.is_fresh() {
            self.update()?;
        }
        let output = self.apt("apt-cache", &["show", PATTERN]).output().context("cannot start apt-cache")?;
        if !output.status.success() {
            bail!(
                "the archive lists no kernel {PATTERN}: {}; `rm -r {}` and repeat",
                String::from_utf8_lossy(&output.stderr).trim(),
                self.directory.display()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The file of a package, downloaded unless it was.
    ///
    /// # Errors
    /// When apt fails: a version that has just left the archive is found no more.
    pub(super) fn package(&self, name: &str, version: &str) -> Result<PathBuf> {
        let file = self.debs.join(format!("{name}_{version}_amd64.deb"));
        if !file.exists() {
            eprintln!("kernels: downloading {name} {version}");
            let download = || {
                let mut apt = self.apt("apt-get", &["download", "-qq", &format!("{name}={version}")]);
                quietly(apt.current_dir(&self.debs))
            };
            download().or_else(|_| {
                self.update()?;
                download()
            })?;
        }
        if !file.exists() {
            bail!("apt downloaded {name} under another name than {}: look there", file.display());
        }
        Ok(file)
    }

    /// Fetches the lists of all suites.
    fn update(&self) -> Result<()> {
        eprintln!("kernels: fetching Debian's lists of packages");
        // One suite that has left the mirror does not matter while others have kernels.
        if let Err(error) = quietly(&mut self.apt("apt-get", &["update", "-qq"])) {
            eprintln!("kernels: {error:#}; going on with the lists that came");
        }
        write(&self.stamp(), "")
    }

    fn is_fresh(&self) -> bool {
        let written = fs::metadata(self.stamp()).and_then(|stamp| stamp.modified());
        written.is_ok_and(|then| SystemTime::now().duration_since(then).is_ok_and(|age| age < FRESH))
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.configuration()).env("LC_ALL", "C").args(arguments);
        apt
    }
}

/// Keeps everything that apt reads and writes under `directory`; proxies and the like stay the machine's.
fn configuration(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "Dir::Etc::SourceList \"{at}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         Dir::State \"{at}\";\n\
         Dir::State::status \"{at}/status\";\n\
         Dir::Cache \"{at}/cache\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
    )
}

/// The mirror of Debian that this machine installs from.
fn mirror() -> Result<String> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let output =
        apt.output().with_context(|| format!("cannot start `{}`: kernels come from Debian", text(&apt)))?;
    mirror_among(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned).context(
        "apt of this machine knows no mirror of Debian, where kernels come from: run `apt-get update` as root",
    )
}

fn mirror_among(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"))
}

/// Runs a program that is only heard when it fails.
pub(super) fn quietly(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", text(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", text(command), output.status, said.trim());
    }
    Ok(())
}

pub(super) fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_own_and_not_that_of_its_security_updates() {
        let targets =
            "Somebody|Debian|http://a/\nDebian|Debian-Security|http://b/\nDebian|Debian|http://c/d/\n";
        assert_eq!(mirror_among(targets), Some("http://c/d/"));
        assert_eq!(mirror_among("|||\n"), None);
    }

    #[test]
    fn apt_is_kept_away_from_the_machines_state() {
        let text = configuration(Path::new("/here"));
        for setting in ["Dir::State \"/here\"", "Dir::Cache \"/here/cache\"", "SourceParts \"/dev/null\""] {
            assert!(text.contains(setting), "{text}");
        }
    }
}
