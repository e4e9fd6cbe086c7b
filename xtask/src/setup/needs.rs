//! What the repository needs from a machine, why, and where it comes from: a table, and the decision what is missing.

use std::fmt;

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// `cargo build`, and running the result.
    Build,
    /// `cargo xtask test`.
    Test,
    /// Format and lints.
    Check,
    /// `cargo xtask bench --peers`, and nothing else.
    Peers,
    /// `cargo xtask kernels`, and nothing else.
    Guests,
}

impl Group {
    /// Everything that working on `lb` takes.
    pub(crate) const ALL: [Self; 3] = [Self::Build, Self::Test, Self::Check];
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Test => "test",
            Self::Check => "check",
            Self::Peers => "compare",
            Self::Guests => "boot other kernels",
        })
    }
}

/// Something that may be on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A program that can be started.
    Program(&'static str),
    /// A compiler with `core` for BPF, or its sources.
    BpfCompiler,
    /// A bpf-linker that is new enough.
    BpfLinker,
    /// clippy of that compiler.
    BpfClippy,
    /// The `stream` module of nginx.
    NginxStream,
    /// A busybox that needs no libraries.
    StaticBusybox,
    /// A component of the compiler for the host: clippy, fmt.
    Component(&'static str),
    /// The file system that pinned programs and maps live in, mounted.
    Bpffs,
}

/// How a missing thing gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// From Debian. `a|b`: the first that this release has.
    Packages(&'static [&'static str]),
    /// By `cargo install`, after [`LINKER_PACKAGES`].
    BpfLinker,
    /// By mounting it.
    MountBpffs,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(names) => f.write_str(&names.join(", ").replace('|', " or ")),
            Self::BpfLinker => write!(f, "cargo install, after {}", LINKER_PACKAGES.join(", ")),
            Self::MountBpffs => f.write_str("mount"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) group: Group,
    pub(crate) thing: Thing,
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) remedy: Remedy,
}

/// bpf-linker is LLVM with a small program around it, and must read what the compiler for BPF writes.
pub(crate) const LINKER_PACKAGES: [&str; 3] = ["llvm-22-dev", "zlib1g-dev", "libzstd-dev"];

const NEEDS: &[Need] = &[
    Need {
        group: Group::Build,
        thing: Thing::Program("c++"),
        name: "a C++ compiler",
        why: "links Rust programs, and LLVM into bpf-linker; compiles libFuzzer",
        remedy: Remedy::Packages(&["build-essential"]),
    },
    Need {
        group: Group::Build,
        thing: Thing::BpfCompiler,
        name: "a Rust compiler for BPF",
        why: "compiles lb-ebpf; Debian's brings core for BPF, rustup's would need rust-src",
        remedy: Remedy::Packages(&["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]),
    },
    Need {
        group: Group::Build,
        thing: Thing::BpfLinker,
        name: "bpf-linker",
        why: "makes the object that the kernel loads, with its BTF",
        remedy: Remedy::BpfLinker,
    },
    Need {
        group: Group::Build,
        thing: Thing::Bpffs,
        name: "/sys/fs/bpf",
        why: "keeps programs and maps while the agent is away",
        remedy: Remedy::MountBpffs,
    },
    tool("nginx", "a real web server as backend", &["nginx-light|nginx"]),
    tool("curl", "a real client", &["curl"]),
    tool("iperf3", "bulk traffic in both directions", &["iperf3"]),
    tool("ping", "asks whether an address answers", &["iputils-ping"]),
    tool("traceroute", "finds the routers on a way", &["traceroute"]),
    tool("ip", "shows the lab to people when a test fails", &["iproute2"]),
    tool("ethtool", "switches off the offloads that hide checksum mistakes", &["ethtool"]),
    tool("sysctl", "forwarding and reverse-path settings of a namespace", &["procps"]),
    tool("nft", "the kernel's own NAT, to compare with", &["nftables"]),
    tool("tcpdump", "reads the captures that `lb trace` writes", &["tcpdump"]),
    tool("wrk", "loads web servers, and knows how long each answer took", &["wrk"]).only(Group::Peers),
    tool("haproxy", "a balancer to compare with", &["haproxy"]).only(Group::Peers),
    Need {
        group: Group::Peers,
        thing: Thing::NginxStream,
        name: "nginx's stream module",
        why: "a balancer to compare with",
        remedy: Remedy::Packages(&["libnginx-mod-stream"]),
    },
    // qemu-utils of another version would keep the emulator from being installed.
    tool("qemu-system-x86_64", "the machine that other kernels run on", &["qemu-system-x86", "qemu-utils"])
        .only(Group::Guests),
    Need {
        group: Group::Guests,
        thing: Thing::StaticBusybox,
        name: "a static busybox",
        why: "everything in a guest but the tests",
        remedy: Remedy::Packages(&["busybox-static"]),
    },
    tool("cpio", "packs what a guest starts from", &["cpio"]).only(Group::Guests),
    tool("depmod", "knows which kernel module needs which", &["kmod"]).only(Group::Guests),
    tool("xz", "unpacks kernel modules", &["xz-utils"]).only(Group::Guests),
    Need {
        group: Group::Check,
        thing: Thing::Component("fmt"),
        name: "rustfmt",
        why: "the format of the sources",
        remedy: Remedy::Packages(&["rustfmt-web"]),
    },
    Need {
        group: Group::Check,
        thing: Thing::Component("clippy"),
        name: "clippy",
        why: "lints of the programs for the host",
        remedy: Remedy::Packages(&["rust-web-clippy", "cargo-web"]),
    },
    Need {
        group: Group::Check,
        thing: Thing::BpfClippy,
        name: "clippy for BPF",
        why: "lints of lb-ebpf for its own target",
        remedy: Remedy::Packages(&["rust-web-clippy", "cargo-web", "libstd-rust-web-dev-bpf"]),
    },
];

const fn tool(program: &'static str, why: &'static str, packages: &'static [&'static str]) -> Need {
    Need {
        group: Group::Test,
        thing: Thing::Program(program),
        name: program,
        why,
        remedy: Remedy::Packages(packages),
    }
}

impl Need {
    /// The same for another purpose.
    const fn only(self, group: Group) -> Self {
        Self { group, ..self }
    }
}

/// Says what is there.
pub(crate) trait Machine {
    /// How `thing` is to be named to people, when it is there.
    fn find(&self, thing: Thing) -> Option<String>;
}

/// A need, and what satisfies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) need: Need,
    pub(crate) there: Option<String>,
}

/// What `groups` need, with what `machine` has of it, in the order of the table.
pub(crate) fn findings(machine: &dyn Machine, groups: &[Group]) -> Vec<Finding> {
    NEEDS
        .iter()
        .filter(|need| groups.contains(&need.group))
        .map(|&need| Finding { need, there: machine.find(need.thing) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has everything but these.
    struct Without(&'static [Thing]);

    impl Machine for Without {
        fn find(&self, thing: Thing) -> Option<String> {
            (!self.0.contains(&thing)).then(|| format!("{thing:?}"))
        }
    }

    fn missing(machine: &Without, groups: &[Group]) -> Vec<Remedy> {
        let all = findings(machine, groups).into_iter();
        all.filter(|finding| finding.there.is_none()).map(|finding| finding.need.remedy).collect()
    }

    #[test]
    fn a_ready_machine_lacks_nothing() {
        assert_eq!(missing(&Without(&[]), &Group::ALL), []);
        assert_eq!(findings(&Without(&[]), &Group::ALL).len() + PEERS + GUESTS, NEEDS.len());
    }

    #[test]
    fn a_machine_with_only_cargo_gets_compiler_linker_and_mount_before_it_builds() {
        const BARE: Without =
            Without(&[Thing::BpfCompiler, Thing::BpfLinker, Thing::Bpffs, Thing::BpfClippy]);
        let build = missing(&BARE, &[Group::Build]);
        assert_eq!(
            build,
            [
                Remedy::Packages(&["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]),
                Remedy::BpfLinker,
                Remedy::MountBpffs
            ]
        );
        // What a demonstration needs does not drag in what checks need.
        assert!(missing(&BARE, &[Group::Check]).iter().all(|remedy| !build.contains(remedy)));
    }

    #[test]
    fn each_missing_tool_names_its_own_package() {
        const NO_WEB_SERVER: Without = Without(&[Thing::Program("nginx")]);
        assert_eq!(missing(&NO_WEB_SERVER, &Group::ALL), [Remedy::Packages(&["nginx-light|nginx"])]);
        assert_eq!(missing(&NO_WEB_SERVER, &[Group::Build]), []);
    }

    /// Lines of the table that are there for the comparison.
    const PEERS: usize = 3;
    /// Lines of the table that are there for other kernels.
    const GUESTS: usize = 5;

    #[test]
    fn other_balancers_come_only_with_the_comparison() {
        const NO_PEERS: Without =
            Without(&[Thing::Program("wrk"), Thing::Program("haproxy"), Thing::NginxStream]);
        assert_eq!(missing(&NO_PEERS, &Group::ALL), []);
        assert_eq!(missing(&NO_PEERS, &[Group::Peers]).len(), PEERS);
    }

    #[test]
    fn the_emulator_comes_only_with_other_kernels_and_brings_its_companion() {
        const NO_EMULATOR: Without = Without(&[Thing::Program("qemu-system-x86_64")]);
        assert_eq!(missing(&NO_EMULATOR, &Group::ALL), []);
        let remedy = Remedy::Packages(&["qemu-system-x86", "qemu-utils"]);
        assert_eq!(missing(&NO_EMULATOR, &[Group::Guests]), [remedy]);
    }

    #[test]
    fn components_that_the_host_compiler_has_are_not_installed_again() {
        const NO_FMT: Without = Without(&[Thing::Component("fmt")]);
        assert_eq!(missing(&NO_FMT, &Group::ALL), [Remedy::Packages(&["rustfmt-web"])]);
    }
}
