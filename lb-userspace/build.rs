//! Builds the eBPF programs (crate `lb-ebpf`) and hands the object to `dataplane`, which embeds it in `lb`.
//!
//! A build script of our own, not aya-build: that one insists on rustup's nightly where there is a rustup, even
//! where it lacks `rust-src` and another compiler could do it. How a compiler is chosen: `build/toolchain.rs`.
//!
//! Sets for the crate:
//! - env `LB_EBPF_OBJECT_PATH`: the object, aligned or not; empty when nothing here can build it;
//! - cfg `lb_no_object`: it is empty. Everything but loading works, so that checks need no eBPF toolchain.
//!
//! Reads: `LB_EBPF_OBJECT=file.o` (embed this one, build nothing) and `LB_EBPF_TOOLCHAIN` (directory or rustup name).

#[path = "build/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use toolchain::{DEBIAN, LINKER_AT_LEAST, Linker, OVERRIDE, Toolchain, bpf_target, flags, linker_paths};

const READY_OBJECT: &str = "LB_EBPF_OBJECT";
const HOW_TO_INSTALL: &str = "run `cargo xtask setup`";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not returned from main: RUST_BACKTRACE would bury the messages of the nested build.
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    println!("cargo:rustc-check-cfg=cfg(lb_no_object)");
    for variable in [READY_OBJECT, OVERRIDE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = from_cargo("OUT_DIR")?;
    let object = out.join("lb-ebpf.o");
    println!("cargo:rustc-env=LB_EBPF_OBJECT_PATH={}", object.display());

    if let Some(ready) = env::var_os(READY_OBJECT).filter(|path| !path.is_empty()) {
        return embed_ready(Path::new(&ready), &object);
    }
    let package = from_cargo("CARGO_MANIFEST_DIR")?;
    let root = package.parent().context("lb-userspace has no parent directory")?;
    for source in
        ["lb-ebpf", "lb-common", "Cargo.toml", "Cargo.lock", "lb-userspace/build.rs", "lb-userspace/build"]
    {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }

    let target = bpf_target(env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|order| order == "little"));
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let linker = match Linker::find() {
        Linker::Usable(path, _) => path,
        Linker::TooOld(path, version) => {
            let path = path.display();
            return go_without(&object, &format!("{path} is {version}, {LINKER_AT_LEAST} is needed"));
        }
        Linker::Missing => return go_without(&object, "bpf-linker is not installed"),
    };
    let Some(toolchain) = Toolchain::find(&rustc, target)? else {
        // Named so that the script runs again once it appears.
        println!("cargo:rerun-if-changed={DEBIAN}/lib/rustlib/{target}");
        return go_without(&object, &format!("no compiler here can build for {target}"));
    };
    println!("cargo:rerun-if-changed={}", linker.display());
    println!("cargo:rerun-if-changed={}", toolchain.tool("rustc").display());
    build(&toolchain, &linker, root, &out, target, &object)
}

/// Compiles `lb-ebpf` and copies it to `object`. Its errors are the build's errors.
fn build(
    toolchain: &Toolchain,
    linker: &Path,
    root: &Path,
    out: &Path,
    target: &str,
    object: &Path,
) -> Result<()> {
    // Beside the profiles, not in OUT_DIR: dev, release and clippy share it.
    let nested = out.ancestors().nth(4).unwrap_or(out).join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH is not set")?;
    let mut flags = flags(&arch);
    flags.push(format!("-Clinker={}", linker.display()));
    let mut cargo = toolchain.cargo("build", target);
    cargo
        .current_dir(root)
        .args(["--release", "--locked", "--target-dir"])
        .arg(&nested)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .stdin(Stdio::null());
    let status = cargo.status().with_context(|| format!("cannot start {:?}", cargo.get_program()))?;
    if !status.success() {
        bail!(
            "lb-ebpf does not build with {toolchain} and {}: see the messages above. \
             To take another compiler set {OVERRIDE}; to (re)install the one that is known to work {HOW_TO_INSTALL}",
            linker.display()
        );
    }
    copy(&nested.join(target).join("release/lb-ebpf"), object)
}

/// A directory that cargo tells build scripts.
fn from_cargo(variable: &str) -> Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run this through cargo"))
}

fn embed_ready(ready: &Path, object: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={}", ready.display());
    copy(ready, object).with_context(|| format!("{READY_OBJECT} must name an object file"))
}

/// An empty object and a warning: nothing can be loaded, all else can be built and checked.
fn go_without(object: &Path, reason: &str) -> Result<()> {
    println!("cargo:rustc-cfg=lb_no_object");
    println!("cargo:warning=lb is built without its eBPF programs: {reason}; {HOW_TO_INSTALL}");
    // A path that does not exist makes cargo ask again each time, until setup has put something there.
    if let Some(first) = linker_paths().first() {
        println!("cargo:rerun-if-changed={}", first.display());
    }
    fs::write(object, []).with_context(|| format!("cannot write {}", object.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
