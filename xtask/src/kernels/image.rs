//! What a guest boots: the kernel of Debian's packages, and a small root file system in memory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::archive::{Archive, create, quietly, write};
use super::listing::Kernel;
use super::modules::{Chosen, WANTED, choose};
use crate::shell::program;

const INIT: &str = include_str!("init.sh");
/// The one test that is run before all others.
const LOADS: &str = "verifier::the_kernel_takes_every_program";

/// A kernel that is unpacked, with the modules that guests need.
pub(super) struct Image {
    directory: PathBuf,
    /// Modules that this kernel does not have.
    pub(super) missing: Vec<String>,
}

impl Image {
    /// Downloads and unpacks a kernel, unless that was done.
    ///
    /// # Errors
    /// When a package cannot be had or is not as expected.
    pub(super) fn of(kernel: &Kernel, archive: &Archive, under: &Path) -> Result<Self> {
        let directory = under.join(&kernel.version);
        let missing = directory.join("missing");
        if !missing.exists() {
            let packages = kernel.packages.iter().map(|name| archive.package(name, &kernel.version));
            let packages = packages.collect::<Result<Vec<_>>>()?;
            create(&directory)?;
            let all = directory.join("all");
            let chosen = unpack(&packages, &all, &directory)?;
            remove(&all)?;
            // Last: it says that the rest is there.
            write(&missing, &chosen.missing.join("\n"))?;
        }
        let missing =
            fs::read_to_string(&missing).with_context(|| format!("cannot read {}", missing.display()))?;
        Ok(Self { directory, missing: missing.lines().map(str::to_owned).collect() })
    }

    /// The kernel itself.
    pub(super) fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Where what the guest says is kept.
    pub(super) fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// Packs a root file system that runs `tests` with `arguments`.
    ///
    /// # Errors
    /// When something cannot be copied, or cpio fails.
    pub(super) fn initramfs(&self, tests: &Path, arguments: &[String]) -> Result<PathBuf> {
        let root = self.directory.join("root");
        remove(&root)?;
        create(&root.join("bin"))?;
        let busybox = program("busybox").context("no busybox: run `cargo xtask kernels` on Debian")?;
        copy(&busybox, &root.join("bin/busybox"))?;
        copy(tests, &root.join("packet"))?;
        write(&root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        write(&root.join("first"), LOADS)?;
        write(&root.join("arguments"), &arguments.join("\n"))?;
        create(&root.join("modules"))?;
        for entry in files(&self.directory.join("modules"))? {
            copy(&entry, &root.join("modules").join(entry.file_name().unwrap_or_default()))?;
        }
        let archive = self.directory.join("initramfs");
        pack(&root, &archive)?;
        remove(&root)?;
        Ok(archive)
    }
}

/// Takes what is needed out of `packages`: `vmlinuz`, `modules` and their `order`.
fn unpack(packages: &[PathBuf], all: &Path, into: &Path) -> Result<Chosen> {
    remove(all)?;
    for package in packages {
        quietly(Command::new("dpkg-deb").arg("-x").arg(package).arg(all))?;
    }
    let boot = files(&all.join("boot"))?;
    let vmlinuz = boot.iter().find(|file| name_of(file).starts_with("vmlinuz-"));
    let vmlinuz = vmlinuz.with_context(|| format!("no vmlinuz in {packages:?}"))?;
    copy(vmlinuz, &into.join("vmlinuz"))?;
    // Newer packages have it under usr, where depmod does not look.
    if !all.join("lib").exists() {
        symlink("usr/lib", all.join("lib"))?;
    }
    let release = name_of(vmlinuz).trim_start_matches("vmlinuz-").to_owned();
    let depmod = program("depmod").context("no depmod: run `cargo xtask kernels` on Debian")?;
    quietly(Command::new(depmod).arg("-b").arg(all).arg(&release))?;
    let modules = all.join("lib/modules").join(&release);
    let read = |name: &str| {
        let file = modules.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let chosen = choose(&WANTED, &read("modules.dep")?, &read("modules.builtin")?);
    let to = into.join("modules");
    remove(&to)?;
    create(&to)?;
    let mut order = String::new();
    for file in &chosen.files {
        let file = modules.join(file);
        let name = name_of(&file);
        copy(&file, &to.join(&name))?;
        // Unpacked here: not every kernel and busybox can.
        if name.ends_with(".xz") {
            quietly(Command::new("xz").args(["-d", "-f"]).arg(to.join(&name)))?;
        }
        order.push_str(name.trim_end_matches(".xz"));
        order.push('\n');
    }
    write(&to.join("order"), &order)?;
    Ok(chosen)
}

/// `root` as the kernel wants it: a cpio archive of the newc kind.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let output = fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut find = Command::new("find");
    let mut find =
        find.arg(".").current_dir(root).stdout(Stdio::piped()).spawn().context("cannot start find")?;
    let names = find.stdout.take().context("find without output")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet", "-R", "0:0"]).current_dir(root).stdin(names).stdout(output);
    let packed = cpio.status().context("cannot start cpio")?;
    let found = find.wait().context("cannot wait for find")?;
    if !packed.success() || !found.success() {
        bail!("cpio could not pack {} into {}", root.display(), archive.display());
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}
