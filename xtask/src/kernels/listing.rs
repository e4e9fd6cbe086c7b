//! Which packages are the kernel of a series: read from a listing as `apt-cache show` prints it.
//!
//! Debian's cloud kernels: they have all that a guest needs, and a third of the size of the general ones.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What asks apt for all of them.
pub(super) const PATTERN: &str = "^linux-image-[0-9].*-cloud-amd64$";
const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";
/// Since 6.17 the image is an empty package, and what was in it is in these.
const PARTS: [&str; 2] = ["linux-binary-", "linux-modules-"];

/// The first two numbers of a kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series(u32, u32);

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('.').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        numbers.ok_or_else(|| format!("{text:?} is no series of kernels, such as 6.1"))
    }
}

/// A kernel on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) series: Series,
    pub(super) version: String,
    /// The packages that hold it, the image first.
    pub(super) packages: Vec<String>,
}

/// The newest kernel of each series in a listing.
pub(super) fn newest(listing: &str) -> BTreeMap<Series, Kernel> {
    let mut found: BTreeMap<Series, (Vec<u32>, Kernel)> = BTreeMap::new();
    for record in listing.split("\n\n") {
        let Some((order, kernel)) = kernel(record) else { continue };
        match found.get(&kernel.series) {
            Some((best, _)) if *best >= order => {}
            _ => {
                found.insert(kernel.series, (order, kernel));
            }
        }
    }
    found.into_iter().map(|(series, (_, kernel))| (series, kernel)).collect()
}

/// The kernel that a record is about, and where it stands among others.
fn kernel(record: &str) -> Option<(Vec<u32>, Kernel)> {
    let field =
        |name| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let image = field("Package")?;
    if !image.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let version = field("Version")?;
    let order = numbers(version)?;
    let depends: Vec<_> = field("Depends").unwrap_or_default().split([',', '|']).map(first_word).collect();
    if depends.iter().any(|name| name.starts_with(PREFIX)) {
        // Only a name for the newest of its series.
        return None;
    }
    let parts = depends.into_iter().filter(|name| PARTS.iter().any(|part| name.starts_with(part)));
    let packages = std::iter::once(image).chain(parts).map(str::to_owned).collect();
    let series = Series(*order.first()?, *order.get(1)?);
    Some((order, Kernel { series, version: version.to_owned(), packages }))
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// `6.1.176-1~bpo11+1` as 6, 1, 176, 1. Nothing for release candidates, which say so behind a tilde in front of the dash.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let (upstream, revision) = version.rsplit_once('-')?;
    let revision = revision.split(['~', '+']).next()?;
    upstream.split('.').chain(revision.split('.')).map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
Package: linux-image-6.1.0-9-cloud-amd64
Version: 6.1.99-1
Depends: kmod, linux-base (>= 4.3~)

Package: linux-image-6.1.0-50-cloud-amd64
Source: linux-signed-amd64 (6.1.176+1)
Version: 6.1.176-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120) | linux-initramfs-tool

Package: linux-image-6.1-cloud-amd64
Version: 6.1.177-1~deb11u1
Depends: linux-image-6.1.0-0.deb11.51-cloud-amd64 (= 6.1.177-1~deb11u1)

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)

Package: linux-image-7.4-rc2-cloud-amd64
Version: 7.4~rc2-1~exp1
";

    #[test]
    fn the_newest_of_each_series_is_taken_by_numbers() {
        let newest = newest(LISTING);
        let versions: Vec<_> =
            newest.iter().map(|(series, kernel)| (series.to_string(), kernel.version.as_str())).collect();
        assert_eq!(versions, [("6.1".into(), "6.1.176-1"), ("7.3".into(), "7.3.4-1~bpo13+1")]);
    }

    #[test]
    fn a_kernel_in_parts_brings_them() {
        let newest = newest(LISTING);
        let packages = |text: &str| newest[&text.parse().unwrap()].packages.clone();
        assert_eq!(packages("6.1"), ["linux-image-6.1.0-50-cloud-amd64"]);
        assert_eq!(
            packages("7.3"),
            [
                "linux-image-7.3.4+deb13-cloud-amd64",
                "linux-binary-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
    }

    #[test]
    fn what_is_no_series_is_told() {
        assert_eq!("5.10".parse(), Ok(Series(5, 10)));
        assert!("6".parse::<Series>().unwrap_err().contains("such as 6.1"));
        assert!(Series(5, 10) > Series(5, 9));
    }
}
