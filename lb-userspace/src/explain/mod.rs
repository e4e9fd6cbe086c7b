//! Packets that `lb explain` asks about: made from a tuple, read from a capture, told in a line.
//!
//! Nothing here knows the agent: bytes in, bytes or text out. The program that answers is the data plane's.

pub mod decode;
pub mod packet;
pub mod pcap;
