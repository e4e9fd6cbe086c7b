//! Which slot a flow falls on.
//!
//! Source address and both ports are hashed; the service's address and protocol are in the seed. Multiplications do the
//! mixing, as in MurmurHash3's `fmix64`: BPF has no rotation, without which lookup3 (the kernel's `jhash`) takes twice
//! and SipHash-1-3 six times as long. The seed comes in late, so that a processor hashes an address while it still looks
//! for the service; clients do not know it, and what an attacker could gain from collisions is one busy backend.

use crate::addr::{Addr, Family, pair};

/// Odd factors without structure, of MurmurHash3, of the golden ratio and of xxHash64.
pub(crate) const FACTORS: [u64; 4] =
    [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// The upper half of a product depends on every bit below: here it comes down to where the next one begins.
#[inline(always)]
pub(crate) const fn folded(state: u64) -> u64 {
    state ^ state >> 32
}

/// The hash of a flow. `ports` is source and destination port as they stand in the packet, read as one word.
///
/// Bytes are taken as a machine with the lowest byte first reads them: balancers of either endianness agree.
#[inline(always)]
pub const fn flow(client: &Addr, ports: u32, seed: u64) -> u32 {
    flow_of(client.family(), client, ports, seed)
}

/// The same for a client whose family is known.
#[inline(always)]
pub const fn flow_of(family: Family, client: &Addr, ports: u32, seed: u64) -> u32 {
    let client = match family {
        Family::V4 => u64::from_le(pair(client.last(), ports)),
        Family::V6 => {
            let [first, last] = client.halves();
            let first = folded(u64::from_le(first).wrapping_mul(FACTORS[2]));
            let last = folded(u64::from_le(last)).wrapping_mul(FACTORS[3]);
            first.wrapping_add(last) ^ u64::from_le(pair(0, ports))
        }
    };
    let state = folded(client ^ seed).wrapping_mul(FACTORS[0]);
    (folded(state).wrapping_mul(FACTORS[1]) >> 32) as u32
}

/// A number by which a flow's packets are alike and those of other flows are not, of 24 bits: what receivers spread packets over
/// their queues by. One multiplication: nothing depends on who can foresee it.
#[inline(always)]
pub(crate) const fn entropy_of(family: Family, client: &Addr, ports: u32) -> u32 {
    let client = match family {
        Family::V4 => client.last(),
        Family::V6 => {
            let [_, net, _, host] = client.words();
            net ^ host
        }
    };
    (u64::from_le(pair(client, ports)).wrapping_mul(FACTORS[0]) >> 40) as u32
}

/// The slot of a hash in a ring: multiplication instead of division, so that every bit counts.
#[inline(always)]
pub const fn slot(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

/// A 64-bit hash of bytes for what is computed once: seeds and backends' places in a ring. FNV-1a with a finaliser
/// (MurmurHash3's `fmix64`), so that near inputs end far apart.
pub fn bytes(parts: &[&[u8]], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for part in parts {
        for byte in *part {
            hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // The boundary counts: "ab","c" is not "a","bc".
        hash = (hash ^ 0xff ^ part.len() as u64).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// The seed of a service's flow hash: from its name and the cluster's seed, never from local ids.
pub fn service_seed(name: &str, cluster: u32) -> u64 {
    bytes(&[name.as_bytes()], cluster as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn of(client: &str, ports: [u8; 4], seed: u64) -> u32 {
        flow(&client.parse::<IpAddr>().unwrap().into(), u32::from_ne_bytes(ports), seed)
    }

    /// Balancers that run together must agree, whatever they are built from: these answers stay.
    #[test]
    fn known_answers() {
        assert_eq!(of("192.0.2.1", [0x9c, 0x40, 0x01, 0xbb], 1), 0x271a_3cc5);
        assert_eq!(of("2001:db8::1", [0x9c, 0x40, 0x01, 0xbb], 1), 0xbcff_3e5a);
    }

    /// One bit of the input changes half of the bits that choose a slot, wherever it is.
    #[test]
    fn every_bit_of_the_input_counts() {
        let mut words = [0x2001_0db8_u32, 0x0102_0304, 0xa0b0_c0d0, 0x0708_090a, 0x9c40_01bb, 7, 8];
        let hash = |w: &[u32; 7]| {
            let client = Addr::from_halves([pair(w[0], w[1]), pair(w[2], w[3])]);
            flow(&client, w[4], pair(w[5], w[6]))
        };
        for bit in 0..224 {
            let mut changed = 0;
            for round in 0..256_u32 {
                words[round as usize % 7] =
                    words[round as usize % 7].wrapping_mul(0x01ff_7f1f).wrapping_add(round);
                let mut other = words;
                other[bit / 32] ^= 1 << (bit % 32);
                // The upper half decides: slots are made by multiplication.
                changed += ((hash(&words) ^ hash(&other)) >> 16).count_ones();
            }
            // 4096 coins: 2048 is expected, the standard deviation is 32.
            assert!((1888..=2208).contains(&changed), "bit {bit}: {changed} of 4096");
        }
    }

    #[test]
    fn slots_cover_the_ring_and_no_more() {
        assert_eq!(slot(0, 16_381), 0);
        assert_eq!(slot(u32::MAX, 16_381), 16_380);
    }

    /// Flows that differ in one port only, as from one client, spread evenly: chi-square over 100 bins.
    #[test]
    fn neighbouring_flows_spread_evenly() {
        for client in ["192.0.2.1", "2001:db8::1"] {
            let client = Addr::from(client.parse::<IpAddr>().unwrap());
            let mut bins = [0_f64; 100];
            for port in 1024_u32..51_024 {
                let ports = u32::from_ne_bytes([(port >> 8) as u8, port as u8, 0, 80]);
                bins[slot(flow(&client, ports, 42), 100) as usize] += 1.0;
            }
            let chi: f64 = bins.iter().map(|n| (n - 500.0) * (n - 500.0) / 500.0).sum();
            // 99 degrees of freedom: 99.9 % of random spreads stay below 148.
            assert!(chi < 148.0, "chi-square {chi} for {client:?}");
        }
    }
}
