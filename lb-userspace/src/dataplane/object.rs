//! The compiled eBPF programs, and the layouts of the maps they ask for.

use std::collections::BTreeMap;

use aya_obj::Object;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_DEVMAP_HASH, BPF_MAP_TYPE_RINGBUF};
use lb_common::abi::{direct, names};

use super::layout::{DEVMAP_VALUE, Layout};

/// The object as the build made it, aligned as its headers want.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT_PATH"));

/// The programs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The build had no eBPF toolchain.
    #[error("this lb was built without its eBPF programs: run `cargo xtask setup`, then build again")]
    Missing,
    /// What was embedded cannot be read.
    #[error("the eBPF object in this lb cannot be read: build again, without LB_EBPF_OBJECT if it is set")]
    Unreadable(#[source] aya_obj::ParseError),
    /// What was embedded cannot be read by those who give its tables their places.
    #[error("the eBPF object in this lb cannot be read: build again, without LB_EBPF_OBJECT if it is set")]
    Tables(#[source] ::object::Error),
    /// What was embedded is another object.
    #[error("the eBPF object in this lb has no map {0}: build again, without LB_EBPF_OBJECT if it is set")]
    NoMap(&'static str),
}

/// The object's bytes.
///
/// # Errors
/// The build had no eBPF toolchain.
pub fn bytes() -> Result<&'static [u8], ObjectError> {
    if OBJECT.is_empty() { Err(ObjectError::Missing) } else { Ok(OBJECT) }
}

/// Tells this object from those of other builds: FNV-1a (64 bits) over its bytes, in hexadecimal.
///
/// It only has to notice a change, nobody gains from a collision.
///
/// # Errors
/// The build had no eBPF toolchain.
pub fn build() -> Result<String, ObjectError> {
    let hash = bytes()?.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(format!("{hash:016x}"))
}

/// What the kernel would be asked to create for every pinned map, with the object's own sizes.
///
/// # Errors
/// The object is missing, or is none of ours.
pub fn layouts() -> Result<BTreeMap<&'static str, Layout>, ObjectError> {
    let object = Object::parse(bytes()?).map_err(ObjectError::Unreadable)?;
    let layout = |name: &'static str| {
        if let Some(table) = direct::table(name) {
            return Ok((name, Layout::direct(table)));
        }
        let map = object.maps.get(name).ok_or(ObjectError::NoMap(name))?;
        let kind = map.map_type();
        let (key_size, value_size) = match kind {
            // Types of a ring buffer are a note for readers; the map has neither keys nor values.
            k if k == BPF_MAP_TYPE_RINGBUF as u32 => (0, 0),
            k if k == BPF_MAP_TYPE_DEVMAP_HASH as u32 => (map.key_size(), DEVMAP_VALUE),
            _ => (map.key_size(), map.value_size()),
        };
        Ok((
            name,
            Layout { kind, key_size, value_size, max_entries: map.max_entries(), flags: map.map_flags() },
        ))
    };
    names::MAPS.into_iter().map(layout).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::limits;
    use lb_common::abi::{BackendEntry, FlowKey, FlowValue, RingLine};

    #[test]
    fn the_object_holds_what_the_names_say() {
        let layouts = layouts().unwrap();
        let rings = layouts[names::RINGS];
        assert_eq!(
            (rings.value_size as usize, rings.max_entries),
            (size_of::<RingLine>(), limits::RING_LINES)
        );
        assert_eq!(layouts[names::BACKENDS].value_size as usize, size_of::<BackendEntry>());
        let flows = layouts[names::FLOWS];
        assert_eq!(
            (flows.key_size as usize, flows.value_size as usize),
            (size_of::<FlowKey>(), size_of::<FlowValue>())
        );
        let object = Object::parse(bytes().unwrap()).unwrap();
        for name in names::PROGRAMS {
            assert!(object.programs.contains_key(name), "no program {name}");
        }
    }
}
