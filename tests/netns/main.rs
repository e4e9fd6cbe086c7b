//! Real programs through networks of namespaces: what users would see. A file for each matter.

mod announce;
mod changes;
mod neighbours;
mod traffic;
mod transfer;
