//! Which slot a flow falls on.
//!
//! Source address and both ports are hashed; the service's address and protocol are in the seed. Bob Jenkins' lookup3
//! (as the kernel's `jhash`) is used with a seed that clients do not know: it costs about 3 ns in the kernel, where
//! SipHash-1-3 costs 18, and what an attacker could gain from collisions here is one busy backend.

use crate::addr::Addr;

const INITIAL: u32 = 0xdead_beef;

/// lookup3's `final()`.
#[inline(always)]
const fn finish(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c ^= b;
    c = c.wrapping_sub(b.rotate_left(14));
    a ^= c;
    a = a.wrapping_sub(c.rotate_left(11));
    b ^= a;
    b = b.wrapping_sub(a.rotate_left(25));
    c ^= b;
    c = c.wrapping_sub(b.rotate_left(16));
    a ^= c;
    a = a.wrapping_sub(c.rotate_left(4));
    b ^= a;
    b = b.wrapping_sub(a.rotate_left(14));
    c ^= b;
    c.wrapping_sub(b.rotate_left(24))
}

/// lookup3's `mix()`.
#[inline(always)]
const fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

/// The hash of two words.
#[inline(always)]
pub const fn two(first: u32, second: u32, seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(2 << 2).wrapping_add(seed);
    finish(start.wrapping_add(first), start.wrapping_add(second), start)
}

/// The hash of five words.
#[inline(always)]
pub const fn five(words: [u32; 5], seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(5 << 2).wrapping_add(seed);
    let (a, b, c) =
        mix(start.wrapping_add(words[0]), start.wrapping_add(words[1]), start.wrapping_add(words[2]));
    finish(a.wrapping_add(words[3]), b.wrapping_add(words[4]), c)
}

/// The hash of a flow. `ports` is source and destination port as they stand in the packet, read as one word.
///
/// Words are taken in network order: balancers of either endianness agree.
#[inline(always)]
pub fn flow(client: &Addr, ports: u32, seed: u32) -> u32 {
    let word = |n: usize| u32::from_be(client.0[n]);
    if client.is_v4() {
        two(word(3), u32::from_be(ports), seed)
    } else {
        five([word(0), word(1), word(2), word(3), u32::from_be(ports)], seed)
    }
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

    /// The published answers of lookup3.c (`driver5`), through its `hashlittle` built from our `mix` and `finish`.
    #[test]
    fn known_answers_of_lookup3() {
        assert_eq!(hashlittle(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(hashlittle(b"Four score and seven years ago", 1), 0xcd62_8161);
        assert_eq!(hashlittle(b"", 0xdead_beef), 0xbd5b_7dde);
    }

    fn hashlittle(key: &[u8], seed: u32) -> u32 {
        let start = INITIAL.wrapping_add(key.len() as u32).wrapping_add(seed);
        let (mut a, mut b, mut c) = (start, start, start);
        if key.is_empty() {
            return c;
        }
        let words = |block: &[u8]| {
            let mut padded = [0_u8; 12];
            padded[..block.len()].copy_from_slice(block);
            let word = |n: usize| u32::from_le_bytes(padded[n * 4..n * 4 + 4].try_into().unwrap());
            (word(0), word(1), word(2))
        };
        let mut rest = key;
        while rest.len() > 12 {
            let (x, y, z) = words(&rest[..12]);
            (a, b, c) = mix(a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
            rest = &rest[12..];
        }
        let (x, y, z) = words(rest);
        finish(a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z))
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
