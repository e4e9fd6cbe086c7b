//! `COUNTERS` and `REASONS`: rows of every CPU, summed when somebody asks.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::counter::REASON_SLOTS;
use lb_common::abi::{BackendCounters, ReasonCounters, names};
use lb_common::reason::Reason;

use super::maps::{Maps, MapsError};
use super::sys;
use zerocopy::IntoBytes;

/// Rows that are read at once.
const BATCH: usize = 1024;

/// The counters of backends and services.
pub struct Counters {
    /// `COUNTERS` for batches.
    raw: MapData,
    backends: PerCpuArray<MapData, BackendCounters>,
    reasons: PerCpuArray<MapData, ReasonCounters>,
}

impl Counters {
    /// Opens both maps.
    ///
    /// # Errors
    /// A map is missing or of another layout.
    pub fn open(maps: &Maps) -> Result<Self, MapsError> {
        Ok(Self {
            raw: maps.open(names::COUNTERS)?,
            backends: maps.typed(names::COUNTERS)?,
            reasons: maps.typed(names::REASONS)?,
        })
    }

    /// Rows of `COUNTERS`.
    pub fn backend_rows(&self) -> u32 {
        self.backends.len()
    }

    /// Rows of `REASONS`.
    pub fn reason_rows(&self) -> u32 {
        self.reasons.len()
    }

    /// What a backend received and sent, over all CPUs.
    ///
    /// # Errors
    /// There is no such row.
    pub fn backend(&self, row: u32) -> Result<BackendCounters, MapsError> {
        let values = self.backends.get(&row, 0).map_err(MapsError::refused(names::COUNTERS))?;
        Ok(sum(&values))
    }

    /// Every row of `COUNTERS`, row 0 first.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn backends(&self) -> Result<Vec<BackendCounters>, MapsError> {
        match self.in_batches() {
            Ok(rows) => Ok(rows),
            Err(error) if sys::no_batches(&error) => {
                (0..self.backend_rows()).map(|row| self.backend(row)).collect()
            }
            Err(source) => Err(MapsError::Io { name: names::COUNTERS, source }),
        }
    }

    fn in_batches(&self) -> io::Result<Vec<BackendCounters>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let mut keys = vec![0_u32; BATCH];
        let mut values = vec![BackendCounters::default(); BATCH * cpus];
        let (mut rows, mut from) = (Vec::new(), None);
        loop {
            // SAFETY: there is room for so many keys, and for a value of each CPU; 64 bytes need no padding.
            let copied = unsafe {
                sys::lookup_batch(
                    self.raw.fd().as_fd(),
                    from.as_ref(),
                    keys.as_mut_bytes(),
                    values.as_mut_bytes(),
                    BATCH,
                )
            }?;
            rows.extend(values.chunks(cpus).take(copied.count).map(sum));
            let Some(next) = copied.next else { return Ok(rows) };
            from = Some(next);
        }
    }

    /// What stands in a row of `REASONS`, over all CPUs: row 0 is no service, others leave out what backends count.
    ///
    /// # Errors
    /// There is no such row.
    pub fn reasons(&self, row: u32) -> Result<[u64; REASON_SLOTS], MapsError> {
        let values = self.reasons.get(&row, 0).map_err(MapsError::refused(names::REASONS))?;
        let mut sum = [0; REASON_SLOTS];
        for one in values.iter() {
            for (sum, count) in sum.iter_mut().zip(one.counts) {
                *sum += count;
            }
        }
        Ok(sum)
    }

    /// How many packets of a service left for each reason, over all CPUs: its row of `REASONS`, and what its backends, those
    /// that are gone too, counted in all: packets towards them, and back.
    ///
    /// # Errors
    /// There is no such row.
    pub fn service(&self, row: u32, towards: u64, back: u64) -> Result<[u64; REASON_SLOTS], MapsError> {
        let mut reasons = self.reasons(row)?;
        reasons[Reason::Forwarded as usize] = towards;
        reasons[Reason::Returned as usize] = back;
        Ok(reasons)
    }

    /// Adds a backend's row to what its service remembers, and sets it to zero: when no packet counts there any more.
    ///
    /// # Errors
    /// There is no such row.
    pub fn keep_backend(&mut self, from: u32, into: u32) -> Result<(), MapsError> {
        let refused = MapsError::refused(names::COUNTERS);
        let gone = self.backends.get(&from, 0).map_err(&refused)?;
        let past = self.backends.get(&into, 0).map_err(&refused)?;
        let sums: Vec<_> = gone.iter().zip(past.iter()).map(|(gone, past)| sum(&[*gone, *past])).collect();
        let sums =
            PerCpuValues::try_from(sums).map_err(|source| MapsError::Io { name: names::COUNTERS, source })?;
        self.backends.set(into, sums, 0).map_err(&refused)?;
        self.clear_backend(from)
    }

    /// Sets a backend's row to zero: before it gets a new owner, while no packet counts there.
    ///
    /// # Errors
    /// There is no such row.
    pub fn clear_backend(&mut self, row: u32) -> Result<(), MapsError> {
        let zeros = on_every_cpu(names::COUNTERS, BackendCounters::default())?;
        self.backends.set(row, zeros, 0).map_err(MapsError::refused(names::COUNTERS))
    }

    /// Sets a service's row to zero: before it gets a new owner, while no packet counts there.
    ///
    /// # Errors
    /// There is no such row.
    pub fn clear_reasons(&mut self, row: u32) -> Result<(), MapsError> {
        let zeros = on_every_cpu(names::REASONS, ReasonCounters { counts: [0; REASON_SLOTS] })?;
        self.reasons.set(row, zeros, 0).map_err(MapsError::refused(names::REASONS))
    }
}

fn sum(cpus: &[BackendCounters]) -> BackendCounters {
    cpus.iter().fold(BackendCounters::default(), |sum, one| BackendCounters {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
        flows: sum.flows + one.flows,
        back_packets: sum.back_packets + one.back_packets,
        back_bytes: sum.back_bytes + one.back_bytes,
        reserved: [0; 3],
    })
}

fn on_every_cpu<T: aya::Pod>(name: &'static str, value: T) -> Result<PerCpuValues<T>, MapsError> {
    let cpus = nr_cpus().map_err(|(_, source)| MapsError::Io { name, source })?;
    PerCpuValues::try_from(vec![value; cpus]).map_err(|source| MapsError::Io { name, source })
}
