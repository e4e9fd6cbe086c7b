//! What the tests share: frames, an oracle that does not use the code under test, and the loaded data plane.

pub mod frame;
pub mod kernel;
pub mod oracle;
pub mod require;
