//! `SETTINGS`: words that steer the program.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::abi::Settings;
use lb_common::addr::Addr;

use super::region::{OutOfRange, Region, word_of};

/// The one entry of `SETTINGS`.
#[derive(Debug)]
pub struct SettingsTable {
    entry: Region<Settings>,
}

impl SettingsTable {
    /// Settings in a region of one entry.
    pub fn new(entry: Region<Settings>) -> Self {
        Self { entry }
    }

    /// A second handle on the same memory.
    pub(in crate::dataplane) fn share(&self) -> Self {
        Self { entry: self.entry.clone() }
    }

    /// What is set.
    pub fn get(&self) -> Settings {
        self.entry.get(0).unwrap_or_default()
    }

    /// Sets where outer headers come from: an address and the bits that flows vary, for each family.
    ///
    /// # Errors
    /// The region is empty.
    pub fn set_sources(&mut self, v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Result<(), OutOfRange> {
        let (source4, varied4) =
            v4.map_or((0, 0), |net| (u32::from(net.network()), u32::from(net.hostmask())));
        let varied6 = v6.map_or(0, |net| u128::from(net.hostmask()) as u32);
        let source6 = v6.map_or_else(Addr::default, |net| IpAddr::V6(net.network()).into());
        self.change(|settings| {
            settings.source4 = source4.to_be();
            settings.varied4 = varied4.to_be();
            settings.source6 = source6;
            settings.varied6 = varied6.to_be();
        })
    }

    /// Sets which generation of `ROUTES` is in force.
    pub(super) fn set_routes(&mut self, generation: u32) -> Result<(), OutOfRange> {
        self.change(|settings| settings.routes = generation)
    }

    /// A generation for a new occupant of a `BACKENDS` entry: never 0, never the same twice in 2^32.
    ///
    /// # Errors
    /// The region is empty.
    pub fn next_generation(&mut self) -> Result<u32, OutOfRange> {
        let next = self.get().generation.wrapping_add(1).max(1);
        self.change(|settings| settings.generation = next)?;
        Ok(next)
    }

    /// Each word that differs is stored once; no two settings depend on each other.
    fn change(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), OutOfRange> {
        let mut settings = self.get();
        change(&mut settings);
        (0..Region::<Settings>::WORDS)
            .try_for_each(|word| self.entry.store(0, word, word_of(&settings, word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_set_one_by_one() {
        let mut settings = SettingsTable::new(Region::on_heap("SETTINGS", 1));
        settings.set_routes(1).unwrap();
        assert_eq!(settings.next_generation(), Ok(1));
        assert_eq!(settings.next_generation(), Ok(2));
        assert_eq!(settings.get(), Settings { routes: 1, generation: 2, ..Settings::default() });
    }

    #[test]
    fn zero_is_no_generation() {
        let mut settings = SettingsTable::new(Region::on_heap("SETTINGS", 1));
        settings.change(|s| s.generation = u32::MAX).unwrap();
        assert_eq!(settings.next_generation(), Ok(1));
    }
}
