//! Which slot a flow falls on.
//!
//! Source address and both ports are hashed; the service's address and protocol are in the seed. Multiplications do the
//! mixing, as in MurmurHash3's `fmix64`: BPF has no rotation, without which lookup3 (the kernel's `jhash`) takes twice
//! and SipHash-1-3 six times as long. The seed is not known to clients, and what an attacker could gain from collisions
//! here is one busy backend.

use crate::addr::Addr;

/// Odd factors without structure, of MurmurHash3 and of the golden ratio.
const FACTORS: [u64; 3] = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53, 0x9e37_79b9_7f4a_7c15];

/// Takes 64 bits in: each bit of the result depends on those of the state below it and on those above, shifted down.
#[inline(always)]
const fn mix(state: u64, bits: u64, factor: u64) -> u64 {
    let state = state ^ bits;
    (state ^ state >> 32).wrapping_mul(factor)
}

/// The hash of a flow. `ports` is source and destination port as they stand in the packet, read as one word.
///
/// Words are taken in network order: balancers of either endianness agree.
#[inline(always)]
pub const fn flow(client: &Addr, ports: u32, seed: u32) -> u32 {
    let state = (seed as u64).wrapping_mul(FACTORS[2]);
    let last = word_pair(client.0[3], ports);
    let state = if client.is_v4() {
        mix(state, last, FACTORS[0])
    } else {
        let state = mix(state, word_pair(client.0[0], client.0[1]), FACTORS[0]);
        mix(mix(state, word_pair(0, client.0[2]), FACTORS[1]), last, FACTORS[0])
    };
    (mix(state, 0, FACTORS[1]) >> 32) as u32
}

/// Two words of network order.
#[inline(always)]
const fn word_pair(high: u32, low: u32) -> u64 {
    (u32::from_be(high) as u64) << 32 | u32::from_be(low) as u64
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
pub fn service_seed(name: &str, cluster: u32) -> u32 {
    bytes(&[name.as_bytes()], cluster as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn of(client: &str, ports: [u8; 4], seed: u32) -> u32 {
        flow(&client.parse::<IpAddr>().unwrap().into(), u32::from_ne_bytes(ports), seed)
    }

    /// Balancers that run together must agree, whatever they are built from: these answers stay.
    #[test]
    fn known_answers() {
        assert_eq!(of("192.0.2.1", [0x9c, 0x40, 0x01, 0xbb], 1), 0xc82b_ef79);
        assert_eq!(of("2001:db8::1", [0x9c, 0x40, 0x01, 0xbb], 1), 0xfb55_262b);
    }

    /// One bit of the input changes half of the bits that choose a slot, wherever it is.
    #[test]
    fn every_bit_of_the_input_counts() {
        let mut words = [0x2001_0db8_u32, 0x0102_0304, 0xa0b0_c0d0, 0x0708_090a, 0x9c40_01bb, 7];
        let hash = |w: &[u32; 6]| {
            flow(&Addr([w[0].to_be(), w[1].to_be(), w[2].to_be(), w[3].to_be()]), w[4].to_be(), w[5])
        };
        for bit in 0..192 {
            let mut changed = 0;
            for round in 0..256_u32 {
                words[round as usize % 6] =
                    words[round as usize % 6].wrapping_mul(0x01ff_7f1f).wrapping_add(round);
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
