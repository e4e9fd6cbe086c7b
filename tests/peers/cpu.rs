//! Processor time: of the whole machine, because what a kernel does for a packet belongs to no process, and of a
//! process group.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Counters at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    cpus: u32,
    /// Idle, waiting for devices, or taken by the hypervisor: all that is not work of this machine.
    not_busy: Duration,
    group: Duration,
}

/// What passed between two readings.
pub(crate) struct Used {
    /// Of all processors, without idling.
    pub(crate) machine: Duration,
    /// Of the group's processes, in user and kernel mode.
    pub(crate) group: Duration,
}

impl Reading {
    /// Reads the counters; of the processes of `group` if there is one.
    ///
    /// # Errors
    /// The kernel does not have them.
    pub(crate) fn take(group: Option<u32>) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let mut lines = stat.lines();
        let fields: Vec<u64> =
            lines.next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        // proc_stat(5): user nice system idle iowait irq softirq steal. Idle time is exact where the tick stops on idle
        // processors; the others are sampled by the tick, so they are not summed.
        let ticks = fields.get(3).context("/proc/stat has no idle time")?
            + fields.get(4).unwrap_or(&0)
            + fields.get(7).unwrap_or(&0);
        let cpus = lines.take_while(|line| line.starts_with("cpu")).count();
        Ok(Self {
            at: Instant::now(),
            cpus: u32::try_from(cpus)?,
            not_busy: duration(ticks)?,
            group: group.map_or(Ok(Duration::ZERO), group_time)?,
        })
    }

    /// What passed since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Used {
        let wall = (self.at - earlier.at) * self.cpus;
        Used {
            machine: wall.saturating_sub(self.not_busy.saturating_sub(earlier.not_busy)),
            group: self.group.saturating_sub(earlier.group),
        }
    }
}

/// Of the processes of a group that live.
fn group_time(group: u32) -> Result<Duration> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        // Others end while this reads.
        let text = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        ticks += ticks_in_group(&text, group).unwrap_or(0);
    }
    duration(ticks)
}

/// Ticks in user and kernel mode, from a line of `/proc/PID/stat`, if the process is of the group.
fn ticks_in_group(stat: &str, group: u32) -> Option<u64> {
    // Behind the name, which may hold anything: state, parent, group … (fields 3, 4, 5), utime, stime (14, 15).
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.get(2)?.parse() != Ok(group) {
        return None;
    }
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn duration(ticks: u64) -> Result<Duration> {
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not say how long a tick is")?;
    Ok(Duration::from_secs_f64(ticks as f64 / hertz as f64))
}
