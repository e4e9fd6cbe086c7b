//! The machine: kernel, capabilities, BPF file system, forwarding.

use super::{Finding, Severity};
use caps::{CapSet, Capability};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs;

/// What the programs need: 32-bit atomics of instruction set v3 (5.12).
const KERNEL: (u32, u32) = (5, 12);

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![kernel(
        &nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |names| names.release().to_string_lossy().into_owned()),
    )];
    findings.push(capabilities());
    findings.push(bpffs());
    findings.extend(jit(sysctl("net/core/bpf_jit_enable").as_deref()));
    for (path, name, family) in [
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward", "IPv4"),
        ("net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding", "IPv6"),
    ] {
        findings.extend(forwarding(name, family, sysctl(path).as_deref()));
    }
    findings.extend(reverse_path("all", sysctl("net/ipv4/conf/all/rp_filter").as_deref()));
    findings
}

/// A setting of the kernel; `None`: this kernel does not have it.
pub(super) fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok().map(|text| text.trim().to_owned())
}

fn kernel(release: &str) -> Finding {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL {
        return Finding::ok("kernel", format!("Linux {release}"));
    }
    Finding::new(
        Severity::Problem,
        "kernel",
        format!("Linux {release} is too old"),
        format!("run Linux {}.{} or later", KERNEL.0, KERNEL.1),
    )
}

fn capabilities() -> Finding {
    const NEEDED: [Capability; 4] =
        [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_PERFMON];
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|capability| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        return Finding::ok("capabilities", "all that an agent needs");
    }
    Finding::new(
        Severity::Warning,
        "capabilities",
        format!("an agent started like this would lack {}", missing.join(", ")),
        "run it as root, or give it these capabilities (systemd: AmbientCapabilities=)",
    )
}

fn bpffs() -> Finding {
    const PATH: &str = "/sys/fs/bpf";
    match statfs(PATH) {
        Ok(fs) if fs.filesystem_type() == BPF_FS_MAGIC => Finding::ok("bpffs", format!("mounted on {PATH}")),
        _ => Finding::new(
            Severity::Problem,
            "bpffs",
            format!("no BPF file system on {PATH}: the data plane could not outlive its agent"),
            format!("mount -t bpf bpf {PATH}"),
        ),
    }
}

/// bpf(2): 0 is the interpreter, about ten times slower.
fn jit(value: Option<&str>) -> Option<Finding> {
    (value == Some("0")).then(|| {
        Finding::new(
            Severity::Warning,
            "kernel",
            "programs are interpreted, not compiled",
            "sysctl -w net.core.bpf_jit_enable=1",
        )
    })
}

fn forwarding(name: &str, family: &str, value: Option<&str>) -> Option<Finding> {
    match value? {
        "0" => Some(Finding::new(
            Severity::Warning,
            "forwarding",
            format!(
                "{family} is not forwarded: in nat mode, replies to clients on the link may find no route"
            ),
            format!("sysctl -w {name}=1"),
        )),
        _ => Some(Finding::ok("forwarding", format!("{family} is forwarded"))),
    }
}

/// Strict reverse path filtering (RFC 3704, section 2.2) drops what the kernel gets from us by another way.
pub(super) fn reverse_path(interface: &str, value: Option<&str>) -> Option<Finding> {
    (value == Some("1")).then(|| {
        Finding::new(
            Severity::Note,
            "rp_filter",
            format!("strict on {interface}: packets that take another way than their replies are dropped"),
            format!("if clients reach this machine by several ways: sysctl -w net.ipv4.conf.{interface}.rp_filter=2"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for (release, severity) in [
            ("6.18.44", Severity::Ok),
            ("5.12.0-1-amd64", Severity::Ok),
            ("5.10.0-28-amd64", Severity::Problem),
            ("4.19", Severity::Problem),
        ] {
            assert_eq!(kernel(release).severity, severity, "{release}");
        }
    }

    #[test]
    fn settings() {
        let off = forwarding("net.ipv4.ip_forward", "IPv4", Some("0")).unwrap();
        assert_eq!(off.remedy.as_deref(), Some("sysctl -w net.ipv4.ip_forward=1"));
        assert_eq!(forwarding("x", "IPv4", Some("1")).unwrap().severity, Severity::Ok);
        assert_eq!(forwarding("x", "IPv6", None), None);
        assert!(reverse_path("eth0", Some("1")).unwrap().remedy.unwrap().contains("eth0.rp_filter=2"));
        assert_eq!(reverse_path("eth0", Some("2")), None);
        assert!(jit(Some("0")).is_some() && jit(Some("1")).is_none());
    }
}
