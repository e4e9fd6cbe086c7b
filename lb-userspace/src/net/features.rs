//! Devices through the ethtool ioctls (`include/uapi/linux/ethtool.h`): driver, queues, offloads.
//!
//! Works on an interface of the calling thread's network namespace, and needs no `ethtool` program.

use super::Error;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
/// `ETH_SS_FEATURES`: the set of names of features.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LENGTH: usize = 32;

/// Generic receive offload.
pub const GRO: &str = "rx-gro";
/// Large receive offload: must be off under XDP.
pub const LRO: &str = "rx-lro";
/// VLAN tags taken out of frames on receipt: an XDP program does not see them.
pub const RX_VLAN: &str = "rx-vlan-hw-parse";
/// Transmit checksum offload: what of it a device has.
pub const TX_CHECKSUM: [&str; 4] =
    ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp"];

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Name of the driver.
    pub driver: String,
    /// Version of the driver: the kernel's, for drivers in its tree.
    pub version: String,
    /// Where it is on its bus; empty for virtual devices.
    pub bus: String,
    /// Queues; `None`: the driver does not say.
    pub queues: Option<Queues>,
    /// Every feature that this kernel knows, by the name that `ethtool -k` accepts.
    pub features: BTreeMap<String, Feature>,
}

/// Queues ("channels") in use, and how many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// That only receive.
    pub rx: u32,
    /// That only send.
    pub tx: u32,
    /// That do both.
    pub combined: u32,
    /// Most that only receive.
    pub max_rx: u32,
    /// Most that only send.
    pub max_tx: u32,
    /// Most that do both.
    pub max_combined: u32,
}

/// A feature of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub active: bool,
    /// It can be switched.
    pub changeable: bool,
}

impl Device {
    /// Whether a feature is on; one that this kernel does not know is not.
    #[must_use]
    pub fn active(&self, feature: &str) -> bool {
        self.features.get(feature).is_some_and(|feature| feature.active)
    }
}

/// Describes a device.
///
/// # Errors
///
/// No such interface, or it is not one that ethtool knows about.
pub fn device(interface: &str) -> Result<Device, Error> {
    let device = Ioctl::open(interface)?;
    let [driver, version, bus] = device.driver()?;
    let names = device.feature_names()?;
    let words = device.features(names.len())?;
    let named = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty());
    let features = named.map(|(bit, name)| (name, feature(&words, bit))).collect();
    Ok(Device { driver, version, bus, queues: device.queues()?, features })
}

/// Switches features on or off: those of `names` that the device can switch.
///
/// # Errors
///
/// No such interface; the device can switch none of them and one is not as wanted; or it did not do as told.
pub fn set(interface: &str, names: &[&str], on: bool) -> Result<(), Error> {
    let device = Ioctl::open(interface)?;
    let known = device.feature_names()?;
    let words = device.features(known.len())?;
    let wanted: Vec<_> = (0..known.len()).filter(|bit| names.contains(&known[*bit].as_str())).collect();
    let changeable: Vec<_> = wanted.iter().copied().filter(|bit| feature(&words, *bit).changeable).collect();
    let state = if on { "on" } else { "off" };
    let refusal = || Error::Unsupported(format!("{interface} cannot switch {} {state}", names.join(", ")));
    if changeable.is_empty() {
        let already = !wanted.is_empty() && wanted.iter().all(|bit| feature(&words, *bit).active == on);
        return if already { Ok(()) } else { Err(refusal()) };
    }
    device.set_features(known.len(), &changeable, on)?;
    let words = device.features(known.len())?;
    // The kernel answers success to wishes that it could not fulfil.
    if changeable.iter().all(|bit| feature(&words, *bit).active == on) { Ok(()) } else { Err(refusal()) }
}

/// One bit of `struct ethtool_get_features_block { available, requested, active, never_changed }`, 32 features each.
fn feature(words: &[u32], bit: usize) -> Feature {
    let word = |field: usize| words.get(bit / 32 * 4 + field).copied().unwrap_or_default();
    let set = |word: u32| word >> (bit % 32) & 1 != 0;
    Feature { active: set(word(2)), changeable: set(word(0)) && !set(word(3)) }
}

/// A way to send ethtool commands to one interface.
struct Ioctl<'a> {
    interface: &'a str,
    socket: std::os::fd::OwnedFd,
}

impl<'a> Ioctl<'a> {
    fn open(interface: &'a str) -> Result<Self, Error> {
        super::index(interface)?;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| Error::kernel("open a socket", error))?;
        Ok(Self { interface, socket })
    }

    /// Runs a command; `buffer` holds its structure as the kernel's 32-bit words, with room for the answer.
    fn run(&self, buffer: &mut [u32], action: &str) -> Result<(), Error> {
        // SAFETY: all-zero bytes are a valid ifreq: it is made of integers, arrays and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // `Ioctl::open` found the interface, so its name fits and leaves room for the terminating zero.
        for (to, from) in request.ifr_name.iter_mut().zip(self.interface.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        // SAFETY: the kernel reads and writes the command's structure at `ifru_data`, whose size follows from the
        // command word and the counts in it; each caller sizes its buffer by the same counts.
        let outcome = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        Errno::result(outcome)
            .map(drop)
            .map_err(|error| Error::kernel(format!("{action} of {}", self.interface), error))
    }

    /// Driver, version, bus position: `struct ethtool_drvinfo`, 196 bytes.
    fn driver(&self) -> Result<[String; 3], Error> {
        let mut words = [0_u32; 49];
        words[0] = GDRVINFO;
        self.run(&mut words, "read the driver")?;
        let bytes = to_bytes(&words);
        // After the command: driver, version, firmware, bus; 32 bytes each.
        Ok([4, 36, 100].map(|at| text(&bytes[at..at + 32])))
    }

    /// `struct ethtool_channels`.
    fn queues(&self) -> Result<Option<Queues>, Error> {
        let mut words = [0_u32; 9];
        words[0] = GCHANNELS;
        match self.run(&mut words, "read the queues") {
            Ok(()) => {}
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
        let [_, max_rx, max_tx, _, max_combined, rx, tx, _, combined] = words;
        Ok(Some(Queues { rx, tx, combined, max_rx, max_tx, max_combined }))
    }

    /// `struct ethtool_sset_info` for the count, then `struct ethtool_gstrings`.
    fn feature_names(&self) -> Result<Vec<String>, Error> {
        let mask = (1_u64 << FEATURE_NAMES).to_ne_bytes();
        let (low, high) = mask.split_at(4);
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        let mut count = [GSSET_INFO, 0, word(low), word(high), 0];
        self.run(&mut count, "count the features")?;
        let count = count[4] as usize;

        let mut words = vec![0; 3 + count * NAME_LENGTH / 4];
        words[0] = GSTRINGS;
        words[1] = FEATURE_NAMES;
        self.run(&mut words, "name the features")?;
        Ok(to_bytes(&words[3..]).chunks(NAME_LENGTH).map(text).collect())
    }

    /// `struct ethtool_gfeatures` without its head.
    fn features(&self, count: usize) -> Result<Vec<u32>, Error> {
        let blocks = count.div_ceil(32);
        let mut words = vec![0; 2 + blocks * 4];
        words[0] = GFEATURES;
        words[1] = u32::try_from(blocks).unwrap_or_default();
        self.run(&mut words, "read the features")?;
        Ok(words.split_off(2))
    }

    /// `struct ethtool_sfeatures`: a mask and values for each 32 features.
    fn set_features(&self, count: usize, bits: &[usize], on: bool) -> Result<(), Error> {
        let blocks = count.div_ceil(32);
        let mut words = vec![0; 2 + blocks * 2];
        words[0] = SFEATURES;
        words[1] = u32::try_from(blocks).unwrap_or_default();
        for bit in bits {
            let block = 2 + bit / 32 * 2;
            words[block] |= 1 << (bit % 32);
            words[block + 1] |= u32::from(on) << (bit % 32);
        }
        self.run(&mut words, "switch features")
    }
}

fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Namespace, veth};

    #[test]
    fn a_veth_says_what_it_is() {
        let namespace = Namespace::create_unique("lbfeat").unwrap();
        veth(&namespace, "a0", &namespace, "b0").unwrap();
        let device = namespace.run(|| device("a0")).unwrap().unwrap();
        assert_eq!(device.driver, "veth");
        let queues = device.queues.unwrap();
        assert!(queues.rx >= 1 && queues.tx >= 1 && queues.max_rx >= queues.rx, "{queues:?}");
        assert!(device.features[GRO].changeable && device.features.contains_key(LRO));
        assert!(device.active("tx-checksum-ip-generic") && !device.active("no-such-feature"));
    }

    #[test]
    fn loopback_refuses_what_it_cannot_switch() {
        let namespace = Namespace::create_unique("lbfeat").unwrap();
        let (always_on, unknown, missing) = namespace
            .run(|| {
                // Loopback's transmit checksum offload is on for good.
                let sum = ["tx-checksum-ip-generic"];
                (
                    (set("lo", &sum, true), set("lo", &sum, false).unwrap_err().to_string()),
                    set("lo", &["no-such-feature"], false).unwrap_err().to_string(),
                    device("eth7").unwrap_err().to_string(),
                )
            })
            .unwrap();
        assert!(always_on.0.is_ok());
        assert!(always_on.1.contains("lo cannot switch tx-checksum-ip-generic off"), "{}", always_on.1);
        assert!(unknown.contains("no-such-feature"), "{unknown}");
        assert!(missing.contains("no interface \"eth7\""), "{missing}");
    }
}
