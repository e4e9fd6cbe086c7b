//! Tables that programs reach without a look-up ([`direct`]): the object only names them, here they get their place. aya
//! relocates what it has created itself, or what lies in the object; these are neither, and it leaves them alone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use lb_common::abi::direct::{self, Direct};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

use super::layout::Layout;
use super::load::OpenError;
use super::load_error::LoadError;
use super::maps::MapsError;
use super::pins::{Pins, PinsError};
use super::sys;

/// `BPF_PSEUDO_MAP_VALUE`: the instruction loads the address of a map's value.
const MAP_VALUE: u8 = 2;
/// `BPF_LD | BPF_IMM | BPF_DW`, the instruction that loads 64 bits.
const LOAD_64: u8 = 0x18;

/// The maps, by name. They must be open while programs are loaded.
pub(super) type Open = BTreeMap<&'static str, MapData>;

/// Opens the tables, and makes and pins those that are missing. `entries` says how many they have.
///
/// # Errors
/// The kernel refuses.
pub(super) fn open(pins: &Pins, entries: impl Fn(&'static str) -> u32) -> Result<Open, OpenError> {
    let one = |table: Direct| {
        let (name, path) = (table.name, pins.map(table.name));
        if path.exists() {
            return Ok((name, MapData::from_pin(path).map_err(MapsError::refused(name))?));
        }
        let layout = Layout::direct(table);
        let value = table.entry.saturating_mul(entries(name));
        let map =
            aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, layout.key_size, value, 1, layout.flags);
        let map = MapData::create(map, name, None).map_err(|e| Box::new(LoadError::new(e.into())))?;
        sys::pin(map.fd().as_fd(), &path).map_err(PinsError::io("pin", &path))?;
        Ok((name, map))
    };
    direct::ALL.into_iter().map(one).collect()
}

/// What goes into an instruction that loads 64 bits.
enum Operand {
    /// The address of the value of the map with this descriptor, and what the instruction says already.
    Value(i32),
    /// The number itself.
    Number(u32),
}

/// Puts the tables' descriptors and sizes into the object's instructions. `entries` says how many entries a table has.
///
/// # Errors
/// The object cannot be read.
pub(super) fn relocate(
    object: &mut [u8],
    maps: &Open,
    entries: impl Fn(&'static str) -> u32,
) -> Result<(), object::Error> {
    let operand = |symbol: &str| {
        let value = maps.get(symbol).map(|map| Operand::Value(map.fd().as_fd().as_raw_fd()));
        let number = || {
            let size = direct::SIZES.iter().find(|size| size.symbol == symbol)?;
            Some(Operand::Number(entries(size.table).wrapping_sub(size.less)))
        };
        value.or_else(number)
    };
    let mut places = Vec::new();
    let file = object::File::parse(&*object)?;
    for section in file.sections() {
        let Some((start, _)) = section.file_range() else { continue };
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(symbol)?;
            if let (true, Some(operand)) = (symbol.is_undefined(), operand(symbol.name()?)) {
                places.push(((start + offset) as usize, operand));
            }
        }
    }
    let little = file.endianness() == Endianness::Little;
    for (at, operand) in places {
        // Two instructions of eight bytes: code, registers, offset, value.
        let Some(pair) = object.get_mut(at..at + 16).filter(|pair| pair[0] == LOAD_64) else { continue };
        let word = match operand {
            // The first value is the map, the second the offset in it, which the compiler has put into the first.
            Operand::Value(fd) => {
                pair.copy_within(4..8, 12);
                pair[1] = if little { pair[1] & 0x0f | MAP_VALUE << 4 } else { pair[1] & 0xf0 | MAP_VALUE };
                fd.cast_unsigned()
            }
            Operand::Number(number) => number,
        };
        pair[4..8].copy_from_slice(&if little { word.to_le_bytes() } else { word.to_be_bytes() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::object;

    /// What the kernel would be told, of a program that names every table.
    #[test]
    fn every_table_gets_its_place() {
        let bytes = object::bytes().unwrap();
        let named: Vec<_> = {
            let file = ::object::File::parse(bytes).unwrap();
            file.symbols()
                .filter(|s| s.is_undefined())
                .filter_map(|s| s.name().ok().map(str::to_owned))
                .collect()
        };
        let tables = direct::ALL.map(|table| table.name);
        let placed = tables.iter().chain(direct::SIZES.iter().map(|size| &size.symbol));
        for symbol in placed.clone() {
            assert!(named.iter().any(|name| name == symbol), "no program names {symbol}");
        }
        let undefined: Vec<_> =
            named.iter().filter(|name| !name.is_empty() && !placed.clone().any(|p| p == name)).collect();
        assert!(undefined.is_empty(), "nobody gives these a place: {undefined:?}");
    }
}
