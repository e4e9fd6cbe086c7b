//! What must hold for any input. A target is a function that panics where it does not.
//!
//! `cargo xtask fuzz` looks for such inputs with libFuzzer; `tests/corpus.rs` runs those that are kept in `corpus`.
//! A new target is a module here, a line in [`TARGETS`], a folder in `corpus` with inputs to start from (`tests/seeds.rs`
//! writes them), and libFuzzer's door to it: a file in `targets` and its `[[bin]]`.
#![allow(clippy::unwrap_used, reason = "a panic is how a target says that something does not hold")]

mod config;
mod decide;
mod embedded;
mod layout;
mod parse;
mod recipe;
mod sent;
pub mod world;

#[path = "../../src/dissector.rs"]
#[allow(dead_code, reason = "shared with the packet tests, which use all of it")]
pub mod dissector;
#[path = "../../src/frame.rs"]
#[allow(dead_code, reason = "shared with the packet tests, which use all of it")]
pub mod frame;
#[path = "../../src/oracle.rs"]
#[allow(dead_code, reason = "shared with the packet tests, which use all of it")]
pub mod oracle;

pub use config::config;
pub use decide::decide;
pub use embedded::embedded;
pub use parse::parse;
pub use recipe::RECIPE;

/// A function that panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] =
    &[("config", config), ("decide", decide), ("embedded", embedded), ("parse", parse)];
