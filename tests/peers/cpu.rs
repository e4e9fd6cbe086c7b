//! Processor time: of the whole machine, because what a kernel does for a packet belongs to no process; of a process
//! group; and of processes that have nothing to do with this one.

use std::collections::BTreeMap;
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
    others: Duration,
}

/// What passed between two readings.
pub(crate) struct Used {
    /// Of all processors, without idling.
    pub(crate) machine: Duration,
    /// Of the group's processes, in user and kernel mode.
    pub(crate) group: Duration,
    /// The share of all processors' time that processes which are not ours had, from 0 to 1.
    pub(crate) others: f64,
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
        let processes = Process::all()?;
        let of_group = |process: &&Process| group == Some(process.group);
        let group = processes.values().filter(of_group).map(|process| process.own).sum();
        let foreign = |pid: &&u32| !is_ours(**pid, &processes);
        let others = processes.keys().filter(foreign).map(|pid| processes[pid].own + processes[pid].children);
        Ok(Self {
            at: Instant::now(),
            cpus: u32::try_from(cpus)?,
            not_busy: duration(ticks)?,
            group: duration(group)?,
            others: duration(others.sum())?,
        })
    }

    /// What passed since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Used {
        let wall = (self.at - earlier.at) * self.cpus;
        Used {
            machine: wall.saturating_sub(self.not_busy.saturating_sub(earlier.not_busy)),
            group: self.group.saturating_sub(earlier.group),
            others: self.others.saturating_sub(earlier.others).as_secs_f64() / wall.as_secs_f64(),
        }
    }
}

/// What `/proc/PID/stat` has of a process, times in ticks.
struct Process {
    parent: u32,
    group: u32,
    own: u64,
    /// Of children that have ended.
    children: u64,
}

impl Process {
    /// All that live, by number.
    fn all() -> Result<BTreeMap<u32, Self>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Some end while this reads.
            let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            all.extend(Self::parse(&text).map(|process| (pid, process)));
        }
        Ok(all)
    }

    fn parse(stat: &str) -> Option<Self> {
        // Behind the name, which may hold anything: state, parent, group … (fields 3, 4, 5), then utime, stime, cutime,
        // cstime (14 to 17) of proc_pid_stat(5).
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            children: ticks(13)? + ticks(14)?,
        })
    }
}

/// The parent of all threads of the kernel.
const KTHREADD: u32 = 2;

/// Whether a process is this one, descends from it, or is a thread of the kernel, which works for whoever needs it.
fn is_ours(mut pid: u32, all: &BTreeMap<u32, Process>) -> bool {
    loop {
        if pid == std::process::id() || pid == KTHREADD {
            return true;
        }
        match all.get(&pid) {
            Some(process) if process.parent != pid => pid = process.parent,
            _ => return false,
        }
    }
}

fn duration(ticks: u64) -> Result<Duration> {
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not say how long a tick is")?;
    Ok(Duration::from_secs_f64(ticks as f64 / hertz as f64))
}
