//! What this machine has.

use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::needs::{Machine, Thing};
use crate::shell::{cargo, program, root, succeeds};
use crate::toolchain::{DEBIAN, Linker, Toolchain, bpf_target};

/// The target of lb-ebpf on this machine.
pub(crate) const BPF_TARGET: &str = bpf_target(cfg!(target_endian = "little"));
/// Where pinned programs and maps live.
pub(super) const BPFFS: &str = "/sys/fs/bpf";
/// Where Debian has the module of nginx.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

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
            Thing::NginxStream => nginx_stream().then(|| "nginx stream".into()),
            Thing::StaticBusybox => static_busybox().then(|| "static busybox".into()),
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
    Toolchain::find("rustc".as_ref(), BPF_TARGET).ok().flatten()
}

/// Whether nginx can balance streams: by a module, or built in.
fn nginx_stream() -> bool {
    let built_in = || {
        let output = Command::new(program("nginx")?).arg("-V").output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Some(text.split_whitespace().any(|word| word == "--with-stream"))
    };
    Path::new(STREAM_MODULE).is_file() || built_in().unwrap_or(false)
}

/// Whether busybox is the one of busybox-static: Debian's other one has the same name and needs libraries.
fn static_busybox() -> bool {
    let needs_none = || {
        let output = Command::new("ldd").arg(program("busybox")?).output().ok()?;
        Some(!output.status.success())
    };
    needs_none().unwrap_or(false)
}

/// A compiler for BPF that has clippy too: the one that builds, else Debian's.
pub(crate) fn bpf_clippy() -> Option<Toolchain> {
    let debian = Toolchain::at(Path::new(DEBIAN), BPF_TARGET);
    bpf_compiler().into_iter().chain(debian).find(|toolchain| toolchain.tool("cargo-clippy").is_file())
}

/// What runs `subcommand` (its first argument) for the host: the one in use, else Debian's.
pub(crate) fn component(subcommand: &str) -> Option<Command> {
    if succeeds(cargo().args([subcommand, "--version"])) {
        return Some(cargo());
    }
    let bin = Path::new(DEBIAN).join("bin");
    let tool = bin.join(format!("cargo-{subcommand}"));
    tool.is_file().then(|| {
        // By path, with its own companions: cargo would prefer those of rustup.
        let mut debian = Command::new(tool);
        debian.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
        debian
            .env("CARGO", bin.join("cargo"))
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTFMT", bin.join("rustfmt"));
        debian
    })
}
