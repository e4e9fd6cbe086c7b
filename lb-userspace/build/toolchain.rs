//! Which compiler and which linker can build a BPF object on this machine.
//!
//! Shared by the build script, which uses them, and by `cargo xtask setup`, which installs what is missing, so that
//! both have one opinion. Only looks: nothing here builds or installs.
//!
//! A compiler is usable when its sysroot holds `core` for the BPF target (Debian ships it compiled), or the sources
//! of `core` (rustup's `rust-src`). Debian's is never the compiler of the host's crates: only of the object.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Names the compiler to take: a sysroot directory or the name of a rustup toolchain.
pub(crate) const OVERRIDE: &str = "LB_EBPF_TOOLCHAIN";
/// Where Debian's compiler lives.
pub(crate) const DEBIAN: &str = "/usr";
/// The oldest bpf-linker that understands what today's compilers write (LLVM 22).
pub(crate) const LINKER_AT_LEAST: Version = Version([0, 13, 0]);

/// A compiler that can build for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The directory above `bin` and `lib`.
    pub(crate) sysroot: PathBuf,
    /// Only the sources of `core` are there: cargo has to build them too.
    pub(crate) build_std: bool,
}

impl Toolchain {
    /// The compiler at `sysroot`, when it can build for `target`.
    pub(crate) fn at(sysroot: &Path, target: &str) -> Option<Self> {
        let complete = ["cargo", "rustc"].iter().all(|tool| sysroot.join("bin").join(tool).is_file());
        let rustlib = sysroot.join("lib/rustlib");
        let compiled = has_compiled_core(&rustlib.join(target).join("lib"));
        let sources = rustlib.join("src/rust/library/core").is_dir();
        (complete && (compiled || sources))
            .then(|| Self { sysroot: sysroot.to_path_buf(), build_std: !compiled })
    }

    /// The first usable of: [`OVERRIDE`], the compiler in use, rustup's nightly, Debian's.
    ///
    /// # Errors
    /// When [`OVERRIDE`] names something that cannot build for `target`: a wish is never replaced by a guess.
    pub(crate) fn find(rustc: &OsStr, target: &str) -> Result<Option<Self>> {
        if let Some(wish) = env::var_os(OVERRIDE).filter(|wish| !wish.is_empty()) {
            let directory = PathBuf::from(&wish);
            let sysroot = if directory.is_dir() { Some(directory) } else { rustup(&wish) };
            return match sysroot.and_then(|sysroot| Self::at(&sysroot, target)) {
                Some(found) => Ok(Some(found)),
                None => bail!(
                    "{OVERRIDE}={} cannot build for {target}: it needs bin/cargo, bin/rustc and either \
                     lib/rustlib/{target} or lib/rustlib/src (`rustup component add rust-src`)",
                    wish.display()
                ),
            };
        }
        let candidates = [sysroot_of(rustc), rustup(OsStr::new("nightly")), Some(DEBIAN.into())];
        Ok(candidates.into_iter().flatten().find_map(|sysroot| Self::at(&sysroot, target)))
    }

    /// A tool of this compiler, by path: a rustup proxy would choose another compiler.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }

    /// Its cargo, running `subcommand` for `target`, cut off from whatever the outer cargo put in the environment
    /// for its own compiler (clippy's wrapper, for one).
    pub(crate) fn cargo(&self, subcommand: &str, target: &str) -> Command {
        // Tools that are not part of cargo by path too: cargo would prefer those of rustup.
        let part_of_cargo = subcommand == "build";
        let program = if part_of_cargo { "cargo".to_owned() } else { format!("cargo-{subcommand}") };
        let mut cargo = Command::new(self.tool(&program));
        for name in [
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOC",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            cargo.env_remove(name);
        }
        for (name, _) in env::vars_os().filter(|(name, _)| is_for_build_scripts(name)) {
            cargo.env_remove(name);
        }
        // aya-ebpf writes BPF assembly, which stable compilers only accept with this.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", self.tool("rustc")).env("CARGO", self.tool("cargo"));
        cargo.arg(subcommand).args(["--package", "lb-ebpf", "--bins", "--target", target]);
        if self.build_std {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo
    }
}

/// The BPF target for kernels of this byte order: programs must have it too.
pub(crate) const fn bpf_target(little_endian: bool) -> &'static str {
    if little_endian { "bpfel-unknown-none" } else { "bpfeb-unknown-none" }
}

/// Compiler flags of the object for machines of `arch`, to be joined for `CARGO_ENCODED_RUSTFLAGS`.
/// The profile in the root manifest adds what cargo knows better: debug info and one codegen unit.
pub(crate) fn flags(arch: &str) -> Vec<String> {
    let mut flags = vec![
        // Registers of the traced machine differ: aya-ebpf asks.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // 32-bit arithmetic and atomics: kernel 5.12 and later.
        "-Ctarget-cpu=v3".into(),
        // Types for maps, line numbers for the verifier's log.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    // Else `[u8; N]` is read byte by byte. The verifier allows it where the machine does.
    if ["x86_64", "aarch64"].contains(&arch) {
        flags.push("-Ctarget-feature=+allows-misaligned-mem-access".into());
    }
    flags
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = if self.build_std { "builds core from rust-src" } else { "has core for BPF" };
        write!(f, "{} ({core})", self.sysroot.display())
    }
}

/// Says whether bpf-linker can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    /// This one.
    Usable(PathBuf, Version),
    /// There is one, older than [`LINKER_AT_LEAST`].
    TooOld(PathBuf, Version),
    /// There is none, or none that starts (its LLVM library may be gone).
    Missing,
}

impl Linker {
    /// Asks each bpf-linker of cargo's bin directory and of `PATH` for its version; the first usable wins.
    pub(crate) fn find() -> Self {
        let mut too_old = Self::Missing;
        for path in linker_paths().into_iter().filter(|path| path.is_file()) {
            let Some(version) = version_of(&path) else { continue };
            if version >= LINKER_AT_LEAST {
                return Self::Usable(path, version);
            }
            too_old = Self::TooOld(path, version);
        }
        too_old
    }
}

/// Every place where a bpf-linker would be found, best first.
pub(crate) fn linker_paths() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    home("CARGO_HOME", ".cargo")
        .map(|cargo| cargo.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join("bpf-linker"))
        .collect()
}

/// Three numbers, compared as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) [u32; 3]);

impl Version {
    /// The first word of `text` that looks like a version: `bpf-linker 0.13.0`, `0.13.1-rc.1`.
    pub(crate) fn first_in(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let plain = word.split(['-', '+']).next()?;
            let mut numbers = plain.split('.').map(|number| number.parse().ok());
            let version = [numbers.next()??, numbers.next()??, numbers.next()??];
            numbers.next().is_none().then_some(Self(version))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Where rustup keeps `toolchain`, given with or without the host's triple.
fn rustup(toolchain: &OsStr) -> Option<PathBuf> {
    let toolchains = home("RUSTUP_HOME", ".rustup")?.join("toolchains");
    let exact = toolchains.join(toolchain);
    if exact.is_dir() {
        return Some(exact);
    }
    let prefix = format!("{}-{}-", toolchain.to_str()?, env::consts::ARCH);
    let mut entries = toolchains.read_dir().ok()?.flatten();
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path())
}

/// The directory that `variable` names, or `default` below the user's home.
fn home(variable: &str, default: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|home| home.join(default)))
}

fn sysroot_of(rustc: &OsStr) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| sysroot.trim_end().into())
}

fn has_compiled_core(directory: &Path) -> bool {
    let Ok(entries) = directory.read_dir() else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

fn version_of(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").output().context("not started").ok()?;
    Version::first_in(&String::from_utf8_lossy(&output.stdout))
}

/// What cargo tells a build script about the package being built; wrong for the nested build.
fn is_for_build_scripts(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_are_found_and_compared_as_numbers() {
        let version = |text| Version::first_in(text).map(|version| version.0);
        assert_eq!(version("bpf-linker 0.13.0\n"), Some([0, 13, 0]));
        assert_eq!(version("0.13.1-rc.1+abc"), Some([0, 13, 1]));
        assert_eq!(version("bpf-linker, LLVM 22"), None);
        assert_eq!(version("1.2.3.4"), None);
        assert!(Version([0, 9, 15]) < LINKER_AT_LEAST);
        assert!(Version([1, 0, 0]) > LINKER_AT_LEAST);
        assert_eq!(LINKER_AT_LEAST.to_string(), "0.13.0");
    }

    #[test]
    fn a_compiler_needs_its_tools_and_core_compiled_or_as_source() {
        let sysroot = tempfile::tempdir().unwrap();
        let touch = |path: &str| {
            let path = sysroot.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let found =
            || Toolchain::at(sysroot.path(), "bpfel-unknown-none").map(|toolchain| toolchain.build_std);
        touch("bin/rustc");
        touch("lib/rustlib/src/rust/library/core/Cargo.toml");
        assert_eq!(found(), None, "without cargo");
        touch("bin/cargo");
        assert_eq!(found(), Some(true), "with rust-src");
        touch("lib/rustlib/bpfel-unknown-none/lib/libcore-0123.rlib");
        assert_eq!(found(), Some(false), "compiled core needs no build");
        assert_eq!(Toolchain::at(sysroot.path(), "bpfeb-unknown-none").map(|t| t.build_std), Some(true));
    }

    #[test]
    fn words_are_read_at_once_only_where_the_machine_can() {
        let misaligned = |arch| flags(arch).iter().any(|flag| flag.contains("misaligned"));
        assert!(misaligned("x86_64") && misaligned("aarch64"));
        assert!(!misaligned("riscv64"));
        assert!(flags("s390x").contains(&"--cfg=bpf_target_arch=\"s390x\"".to_owned()));
    }
}
