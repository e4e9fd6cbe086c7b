//! `cargo xtask kernels`: Debian kernels, old and new, load the programs and run the packet tests, each in a guest.
//!
//! `listing` chooses packages, `archive` downloads them, `modules` and `image` make of them what a guest boots, `guest`
//! boots it, `console` understands what it says, `report` shows it. Not part of CI: emulators are slow.

mod archive;
mod console;
mod guest;
mod image;
mod listing;
mod modules;
mod packet;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use listing::Series;

use crate::setup::{self, Group};
use crate::shell::root;
use archive::Archive;
use image::Image;
use listing::Kernel;
use report::Row;

/// The long-lived ones that Debian ships; the newest of all comes on top.
const USUAL: [&str; 3] = ["5.10", "6.1", "6.12"];
/// How long a guest may take: an emulated one needs eight minutes on a quiet machine.
const LIMIT: Duration = Duration::from_mins(30);

/// Boots the kernels of `series`, the usual ones where none is named, and runs the packet tests that have `filter` in
/// their name.
///
/// # Errors
/// When a kernel does not load the programs, a test fails, or things do not come so far.
pub(crate) fn run(series: &[Series], filter: Option<&str>, json: bool) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("guests are built for x86_64, and this machine is {}", std::env::consts::ARCH);
    }
    setup::run(&[Group::Build, Group::Guests])?;
    let directory = directory();
    let archive = Archive::open(&directory)?;
    let kernels = choose(series, &listing::newest(&archive.kernels()?))?;
    eprintln!("kernels: building the packet tests without shared libraries");
    let tests = packet::build()?;

    let mut rows = Vec::new();
    for kernel in kernels {
        rows.push(boot(&kernel, &archive, &directory, &tests, filter)?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}\n{}", report::table(&rows), report::notes(&rows));
    }
    let bad: Vec<_> = rows.iter().filter(|row| !row.good).map(|row| row.series.as_str()).collect();
    if !bad.is_empty() {
        bail!(
            "not all is well on {}; what its guest said is in console.log under {}",
            bad.join(", "),
            directory.display()
        );
    }
    Ok(())
}

/// One kernel from package to row.
fn boot(kernel: &Kernel, archive: &Archive, under: &Path, tests: &Path, filter: Option<&str>) -> Result<Row> {
    let name = kernel.series.to_string();
    let image =
        Image::of(kernel, archive, under).with_context(|| format!("no guest of {}", kernel.version))?;
    let initramfs = image.initramfs(tests, &packet::arguments(filter))?;
    eprintln!("kernels: {name}: booting {}", kernel.version);
    let start = Instant::now();
    let mut said = guest::run(&name, &image.kernel(), &initramfs, &image.console(), LIMIT)?;
    said.trouble.extend(image.missing.iter().map(|module| format!("it has no module {module}")));
    let seconds = start.elapsed().as_secs();
    eprintln!("kernels: {name}: {} after {seconds} s", if said.is_good() { "good" } else { "NOT good" });
    Ok(Row { series: name, version: kernel.version.clone(), good: said.is_good(), seconds, said })
}

/// The kernels to boot, oldest first.
fn choose(series: &[Series], offered: &BTreeMap<Series, Kernel>) -> Result<Vec<Kernel>> {
    let newest = offered.keys().next_back().copied().context("the archive has no kernels")?;
    let wanted: BTreeSet<Series> = if series.is_empty() {
        USUAL.iter().filter_map(|text| text.parse().ok()).chain([newest]).collect()
    } else {
        series.iter().copied().collect()
    };
    let kernel = |series| {
        offered.get(&series).cloned().with_context(|| {
            let offered: Vec<_> = offered.keys().map(Series::to_string).collect();
            format!("Debian offers no kernel {series}: there are {}", offered.join(", "))
        })
    };
    wanted.into_iter().map(kernel).collect()
}

/// Packages, kernels and consoles are kept here.
fn directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("kernels")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(series: &[&str]) -> BTreeMap<Series, Kernel> {
        let kernel = |text: &&str| {
            let series = text.parse().unwrap();
            (series, Kernel { series, version: format!("{text}.1-1"), packages: Vec::new() })
        };
        series.iter().map(kernel).collect()
    }

    fn chosen(series: &[&str], offer: &[&str]) -> Result<Vec<String>> {
        let series: Vec<_> = series.iter().map(|text| text.parse().unwrap()).collect();
        Ok(choose(&series, &offered(offer))?.iter().map(|kernel| kernel.series.to_string()).collect())
    }

    #[test]
    fn unasked_it_is_the_usual_ones_and_the_newest() {
        let offer = ["5.10", "6.1", "6.9", "6.12", "7.3"];
        assert_eq!(chosen(&[], &offer).unwrap(), ["5.10", "6.1", "6.12", "7.3"]);
        assert_eq!(chosen(&["6.12", "6.1", "6.1"], &offer).unwrap(), ["6.1", "6.12"]);
    }

    #[test]
    fn what_is_not_on_offer_is_told_with_what_is() {
        let error = chosen(&["4.19"], &["5.10", "6.1"]).unwrap_err().to_string();
        assert_eq!(error, "Debian offers no kernel 4.19: there are 5.10, 6.1");
        assert!(chosen(&[], &["6.1"]).is_err());
    }
}
