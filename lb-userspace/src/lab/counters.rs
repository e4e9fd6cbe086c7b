//! Counters of a namespace that show whether packets arrived intact.

use super::Namespace;
use anyhow::{Context, Result};

impl Namespace {
    /// Packets that this namespace dropped for a wrong checksum since it was made: TCP and UDP over IPv4 and IPv6,
    /// and IPv4 headers.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn checksum_errors(&self) -> Result<u64> {
        self.run(|| {
            let (snmp, snmp6, netstat) = (read("snmp")?, read("snmp6")?, read("netstat")?);
            // TCP counts both families in one row; UDP has a file for each.
            Ok(two_lines(&snmp, "Tcp:", "InCsumErrors").context("no Tcp InCsumErrors in snmp")?
                + two_lines(&snmp, "Udp:", "InCsumErrors").context("no Udp InCsumErrors in snmp")?
                + two_lines(&netstat, "IpExt:", "InCsumErrors")
                    .context("no IpExt InCsumErrors in netstat")?
                + one_line(&snmp6, "Udp6InCsumErrors").context("no Udp6InCsumErrors in snmp6")?)
        })?
    }

    /// Datagrams that this namespace could not put together since it was made, because fragments were missing or did not
    /// fit: IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn reassembly_failures(&self) -> Result<u64> {
        self.run(|| {
            let (snmp, snmp6) = (read("snmp")?, read("snmp6")?);
            Ok(two_lines(&snmp, "Ip:", "ReasmFails").context("no Ip ReasmFails in snmp")?
                + one_line(&snmp6, "Ip6ReasmFails").context("no Ip6ReasmFails in snmp6")?)
        })?
    }
}

/// A file of counters of this thread's namespace: `/proc/net` is `/proc/self/net`, that of the main thread.
fn read(file: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// A value of the form of `/proc/net/snmp`: a line of names, then a line of values, both behind the same word.
fn two_lines(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split_whitespace().next() == Some(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let position = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(position)?.parse().ok()
}

/// A value of the form of `/proc/net/snmp6`: a name and a value on each line.
fn one_line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{veth, wait};
    use etherparse::PacketBuilder;
    use std::time::Duration;

    #[test]
    fn both_forms_are_read() {
        let snmp = "Tcp: RtoMin InCsumErrors\nTcp: -1 7\nUdp: InCsumErrors MemErrors\nUdp: 3 9\n";
        assert_eq!(two_lines(snmp, "Tcp:", "InCsumErrors"), Some(7));
        assert_eq!(two_lines(snmp, "Udp:", "InCsumErrors"), Some(3));
        assert_eq!(two_lines(snmp, "Icmp:", "InCsumErrors"), None);
        assert_eq!(one_line("Udp6InErrors 1\nUdp6InCsumErrors   \t5\n", "Udp6InCsumErrors"), Some(5));
    }

    #[test]
    fn a_wrong_checksum_is_counted_once() {
        let (here, there) =
            (Namespace::create_unique("lbc").unwrap(), Namespace::create_unique("lbc").unwrap());
        veth(&here, "a0", &there, "b0").unwrap();
        here.mac("a0", [2, 0, 0, 0, 0, 1]).unwrap();
        there.mac("b0", [2, 0, 0, 0, 0, 2]).unwrap();
        there.address("b0", "10.9.0.2/24").unwrap();
        there.address("b0", "fd09::2/64").unwrap();
        assert_eq!(there.checksum_errors().unwrap(), 0);

        let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let (mut ip, mut udp4, mut udp6, mut tcp6) = (vec![], vec![], vec![], vec![]);
        let v4 = || ethernet().ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64);
        let [source, target] =
            ["fd09::1", "fd09::2"].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let v6 = || ethernet().ipv6(source, target, 64);
        v4().udp(1, 9).write(&mut ip, b"x").unwrap();
        ip[24] ^= 1;
        v4().udp(1, 9).write(&mut udp4, b"x").unwrap();
        v6().udp(1, 9).write(&mut udp6, b"x").unwrap();
        v6().tcp(1, 9, 0, 100).write(&mut tcp6, b"").unwrap();
        // The last byte of a UDP payload, or of a TCP header's urgent pointer.
        for frame in [&mut udp4, &mut udp6, &mut tcp6] {
            *frame.last_mut().unwrap() ^= 1;
        }
        // Without a listener the kernel may drop a datagram before it looks at the checksum.
        let listeners =
            there.run(|| ["10.9.0.2:9", "[fd09::2]:9"].map(|at| std::net::UdpSocket::bind(at).unwrap()));
        for (sent, frame) in [ip, udp4, udp6, tcp6].iter().enumerate() {
            here.run(|| crate::net::announce::send_frame(crate::net::index("a0").unwrap(), frame))
                .unwrap()
                .unwrap();
            let counted = || there.checksum_errors().unwrap() == sent as u64 + 1;
            wait::until("a counted checksum error", Duration::from_secs(10), counted).unwrap();
        }
        drop(listeners);
    }
}
