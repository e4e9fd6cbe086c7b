//! What this machine has.

use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::needs::{Machine, Thing};
use crate::shell::{cargo, program, root, succeeds};
use crate::toolchain::{DEBIAN, Linker, Toolchain, bpf_target};

/// Where pinned programs and maps live.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// The machine this runs on.
pub(super) struct ThisMachine;

impl Machine for ThisMachine {
    fn find(&self, thing: Thing) -> Option<String> {
        match thing {
            Thing::Program(name) => program(name).map(|_| name.to_owned()),
            Thing::BpfCompiler => bpf_compiler().map(|found| format!("Rust for BPF in {found}")),
            Thing::BpfLinker => match Linker::find() {
                Linker::Usable(_, version) => Some(format!("bpf-linker {version}")),
                Linker::TooOld(..) | Linker::Missing => None,
            },
            Thing::BpfClippy => bpf_clippy().map(|_| "clippy for BPF".into()),
            Thing::Component(name) => component(name).map(|_| format!("cargo {name}")),
            Thing::Bpffs => {
                let mounted = statfs(BPFFS).is_ok_and(|about| about.filesystem_type() == BPF_FS_MAGIC);
                mounted.then(|| format!("{BPFFS} mounted"))
            }
        }
    }
}

/// The compiler that the build script will take. A wrong wish is the build script's to report.
fn bpf_compiler() -> Option<Toolchain> {
    Toolchain::find("rustc".as_ref(), bpf_target()).ok().flatten()
}

/// A compiler for BPF that has clippy too: the one that builds, else Debian's.
pub(crate) fn bpf_clippy() -> Option<Toolchain> {
    let debian = Toolchain::at(Path::new(DEBIAN), bpf_target());
    bpf_compiler().into_iter().chain(debian).find(|toolchain| toolchain.tool("cargo-clippy").is_file())
}

/// A cargo for the host that knows `subcommand`: the one in use, else Debian's.
pub(crate) fn component(subcommand: &str) -> Option<Command> {
    if succeeds(cargo().args([subcommand, "--version"])) {
        return Some(cargo());
    }
    let bin = Path::new(DEBIAN).join("bin");
    bin.join(format!("cargo-{subcommand}")).is_file().then(|| {
        // By path, and with its own compiler: rustup's proxies come first on PATH.
        let mut debian = Command::new(bin.join("cargo"));
        debian.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
        debian.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("RUSTC", bin.join("rustc"));
        debian
    })
}
