//! Every decision of `lb`, free of clocks, I/O and maps.
//!
//! The same code runs in the kernel (through `lb-ebpf`), in the agent, and in tests on the host. What it needs from
//! its surroundings it takes through two small traits: [`packet::Frame`], a packet with bounds-checked access, and
//! [`pipeline::Tables`], the maps.
//!
//! | module | question it answers |
//! | --- | --- |
//! | [`abi`] | what lies in the maps, byte by byte |
//! | [`addr`] | how addresses and ports are kept |
//! | [`packet`] | what is this frame: ours, not ours, malformed because |
//! | [`hash`] | which slot does a flow fall on |
//! | [`maglev`] | which backend does a slot belong to |
//! | [`slot`] | what does a slot hold, and how does it change |
//! | [`select`] | which backend does this packet go to |
//! | [`table`] | where does a key live in a two-choice table |
//! | [`checksum`] | what is the new checksum |
//! | [`nat`], [`l2`], [`encap`] | which bytes change |
//! | [`decap`] | what does a backend without tunnel devices do |
//! | [`pipeline`] | all of it in order |
//! | [`stage`], [`detour`], [`wrap`] | what does another program do, and why |
//! | [`icmp`] | who answers an echo request, who is told of an error, or that a packet is too big |
//! | [`fragment`] | where do the parts of a datagram go |
//! | [`wide`] | which range of ports does a packet belong to |
//! | [`reason`] | why did the packet leave this way |
//! | `host` | the maps as vectors, for tests (feature `host`) |
#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod addr;
pub mod checksum;
pub mod decap;
pub mod detour;
pub mod encap;
pub mod fragment;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod icmp;
pub mod l2;
pub mod maglev;
mod named;
pub mod nat;
pub mod packet;
pub mod pipeline;
pub mod reason;
pub mod select;
pub mod slot;
pub mod stage;
pub mod table;
pub mod wide;
pub mod wrap;
