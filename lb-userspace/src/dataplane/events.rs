//! `EVENTS`: messages from the program, as they come. The only part of the data plane that waits.

use std::io;

use aya::maps::{MapData, RingBuf};
use lb_common::abi::{Event, names};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

use super::maps::{Maps, MapsError};

/// The stream of messages. The kernel drops what finds the buffer full; there must be one reader.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Opens the buffer; within a tokio runtime.
    ///
    /// # Errors
    /// The map is missing, or the runtime cannot watch it.
    pub fn open(maps: &Maps) -> Result<Self, MapsError> {
        let ring: RingBuf<MapData> = maps.typed(names::EVENTS)?;
        // SAFETY: the ring owns its descriptor, which stays the same and open until the ring is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| MapsError::Io { name: names::EVENTS, source: error.into() })?;
        Ok(Self { ring })
    }

    /// The next message. Cancelling loses none.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            while let Some(item) = guard.get_inner_mut().next() {
                // One of another length is not ours to understand.
                if let Ok(event) = Event::read_from_bytes(&item) {
                    return Ok(event);
                }
            }
            guard.clear_ready();
        }
    }
}
