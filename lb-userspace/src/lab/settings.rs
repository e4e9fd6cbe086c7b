//! Switches of a namespace's kernel: sysctls and offloads.

use super::Namespace;
use crate::net::features;
use anyhow::{Context, Result, ensure};

impl Namespace {
    /// Writes a sysctl inside: `net.ipv4.ip_forward`, or `net/ipv4/conf/eth0.5/rp_filter` where a name has dots.
    ///
    /// # Errors
    ///
    /// The sysctl does not exist here, or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key)?;
        self.run(|| std::fs::write(&path, value))?
            .with_context(|| format!("cannot set {key} to {value} in network namespace {}", self.name()))
    }

    /// Reads a sysctl inside, without the newline at its end.
    ///
    /// # Errors
    ///
    /// The sysctl does not exist here.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key)?;
        let value = self.run(|| std::fs::read_to_string(&path))?;
        let value =
            value.with_context(|| format!("cannot read {key} in network namespace {}", self.name()))?;
        Ok(value.trim_end().to_owned())
    }

    /// Forwards packets, IPv4 and IPv6: makes the namespace a router.
    ///
    /// # Errors
    ///
    /// As [`Self::sysctl`].
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Switches generic receive offload. On a veth it also makes the driver poll (NAPI), which `XDP_REDIRECT` into
    /// it needs when it has no XDP program.
    ///
    /// # Errors
    ///
    /// No such link, or the driver refuses.
    pub fn gro(&self, link: &str, on: bool) -> Result<()> {
        Ok(self.run(|| features::set(link, &[features::GRO], on))??)
    }

    /// Switches transmit checksum offload. Off: packets leave with complete checksums.
    ///
    /// # Errors
    ///
    /// No such link, or the driver refuses.
    pub fn tx_checksum(&self, link: &str, on: bool) -> Result<()> {
        Ok(self.run(|| features::set(link, &features::TX_CHECKSUM, on))??)
    }
}

fn sysctl_path(key: &str) -> Result<String> {
    let relative = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    ensure!(
        relative.split('/').all(|part| !part.is_empty() && part != ".."),
        "\"{key}\" does not name a sysctl: write it like net.ipv4.ip_forward"
    );
    Ok(format!("/proc/sys/{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_belong_to_the_namespace() {
        let (one, two) =
            (Namespace::create_unique("lbset").unwrap(), Namespace::create_unique("lbset").unwrap());
        one.forward().unwrap();
        assert_eq!(one.read_sysctl("net.ipv4.ip_forward").unwrap(), "1");
        assert_eq!(one.read_sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
        assert_eq!(two.read_sysctl("net.ipv4.ip_forward").unwrap(), "0");
        let error = format!("{:#}", one.sysctl("net.ipv4.no_such", "1").unwrap_err());
        assert!(error.contains("net.ipv4.no_such"), "{error}");
        assert!(one.sysctl("../../etc/x", "1").is_err());
    }

    #[test]
    fn offloads_are_switched() {
        let (one, two) =
            (Namespace::create_unique("lbset").unwrap(), Namespace::create_unique("lbset").unwrap());
        crate::lab::veth(&one, "a0", &two, "b0").unwrap();
        let active = |name: &str| one.run(|| features::device("a0").unwrap().features[name].active).unwrap();
        for on in [true, false, true] {
            one.gro("a0", on).unwrap();
            assert_eq!(active("rx-gro"), on);
            one.tx_checksum("a0", on).unwrap();
            assert_eq!(active("tx-checksum-ip-generic"), on);
        }
    }
}
