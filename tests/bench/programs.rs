//! The bench's own programs, and how a target is run through them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{ProgramError, ProgramFd, TestRun, Xdp, XdpMode};
use aya::{Ebpf, TestRunOptions};
use lb_userspace::lab::Namespace;
use nix::time::{ClockId, clock_gettime};

use crate::packets::{self, Family};
use crate::shared::{FRAME, State, Template};

// SAFETY: words, without padding: 96 + 2 * 4 bytes.
unsafe impl aya::Pod for Template {}
// SAFETY: two words.
unsafe impl aya::Pod for State {}

/// How often a load that a signal interrupted is tried: the verifier then gives up with EAGAIN.
const ATTEMPTS: u32 = 10;
/// Room for headers that a target puts in front.
const HEADROOM: usize = 64;
/// `XDP_TX`.
pub(crate) const TX: u32 = 3;
/// `XDP_PASS`.
pub(crate) const PASS: u32 = 2;

/// A floor: its name in reports, its program, the family it is measured with, bytes it puts in front.
pub(crate) const FLOORS: [(&str, &str, Family, usize); 6] = [
    ("return", "floor_return", Family::V4, 0),
    ("swap-macs", "floor_macs", Family::V4, 0),
    ("encap-ipv4", "floor_encap4", Family::V4, 20),
    ("encap-ipv6", "floor_encap6", Family::V6, 40),
    ("nat-ipv4", "floor_nat4", Family::V4, 0),
    ("nat-ipv6", "floor_nat6", Family::V6, 0),
];

/// Which wrapper makes the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrapper {
    pub(crate) family: Family,
    /// Packets of backends, else of clients.
    pub(crate) back: bool,
}

impl Wrapper {
    pub(crate) const ALL: [Self; 4] = [
        Self { family: Family::V4, back: false },
        Self { family: Family::V6, back: false },
        Self { family: Family::V4, back: true },
        Self { family: Family::V6, back: true },
    ];

    fn program(self) -> &'static str {
        match (self.family, self.back) {
            (Family::V4, false) => "client4",
            (Family::V6, false) => "client6",
            (Family::V4, true) => "backend4",
            (Family::V6, true) => "backend6",
        }
    }
}

/// The loaded programs.
pub(crate) struct Programs {
    ebpf: Ebpf,
    /// Open as long as it is needed: the kernel empties the array when the last handle goes.
    target: ProgramArray<MapData>,
    template: Array<MapData, Template>,
    state: PerCpuArray<MapData, State>,
    ifindex: u32,
}

impl Programs {
    /// Loads the object and attaches the wrappers to interfaces of `namespace`, in which this thread is. Packets will seem
    /// to come in through `ifindex`.
    pub(crate) fn load(object: &Path, anchors: &[String], ifindex: u32) -> Result<Self> {
        let mut ebpf =
            Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
        for (_, name, _, _) in FLOORS {
            load(program(&mut ebpf, name)?)?;
        }
        // Where a program is attached, BPF_PROG_RUN does not have to patch the kernel's dispatcher for it, each time.
        for (wrapper, anchor) in Wrapper::ALL.iter().zip(anchors) {
            let xdp = program(&mut ebpf, wrapper.program())?;
            load(xdp)?;
            xdp.attach(anchor, XdpMode::Skb).with_context(|| format!("cannot attach to {anchor}"))?;
        }
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        let (target, template, state) = (take("TARGET")?, take("TEMPLATE")?, take("STATE")?);
        Ok(Self {
            target: target.try_into()?,
            template: template.try_into()?,
            state: state.try_into()?,
            ebpf,
            ifindex,
        })
    }

    /// Runs a floor.
    pub(crate) fn floor(&mut self, name: &str, run: &Run<'_>) -> Result<f64> {
        let fd = program(&mut self.ebpf, name)?.fd()?.try_clone()?;
        self.run(&fd, run)
    }

    /// Runs a target `run.repeat` times, each time on a fresh packet. Gives the nanoseconds of this thread's CPU time for
    /// each, the wrapper included.
    pub(crate) fn run(&mut self, target: &ProgramFd, run: &Run<'_>) -> Result<f64> {
        self.target.set(0, target, 0)?;
        self.template.set(0, run.template, 0)?;
        let before = self.runs()?;
        let frame = packets::bytes(run.template);
        let mut out = vec![0; FRAME + HEADROOM];
        let context = [0, frame.len() as u32, 0, self.ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let wrapper: &Xdp = self.ebpf.program(run.wrapper.program()).context("no wrapper")?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: run.repeat,
            ..TestRunOptions::new()
        };
        // The kernel's own figure is cut to whole nanoseconds, and counts what other tasks did meanwhile.
        let start = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let result = wrapper.test_run(options)?;
        let took = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)? - start;

        ensure!(
            result.return_value == run.action,
            "the target returned {}, not {}",
            result.return_value,
            run.action
        );
        let length = FRAME + run.grows;
        ensure!(
            result.data_size_out as usize == length,
            "the frame has {} bytes, not {length}",
            result.data_size_out
        );
        let runs = self.runs()? - before;
        ensure!(runs == u64::from(run.repeat), "{runs} runs were made of {}", run.repeat);
        Ok((took.tv_sec() as f64 * 1e9 + took.tv_nsec() as f64) / f64::from(run.repeat))
    }

    fn runs(&self) -> Result<u64> {
        Ok(self.state.get(&0, 0)?.iter().map(|state| state.runs).sum())
    }
}

/// One measurement.
pub(crate) struct Run<'a> {
    pub(crate) wrapper: Wrapper,
    pub(crate) template: &'a Template,
    pub(crate) repeat: u32,
    /// What the target must return.
    pub(crate) action: u32,
    /// Bytes that the target puts in front.
    pub(crate) grows: usize,
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
}

fn load(program: &mut Xdp) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            result => return Ok(result?),
        }
    }
    Ok(program.load()?)
}

/// Makes the interfaces that wrappers are attached to, and one that packets come in through; gives the names of the former.
pub(crate) fn links(namespace: &Namespace) -> Result<Vec<String>> {
    lb_userspace::lab::veth(namespace, INGRESS, namespace, "peer0")?;
    let names: Vec<String> = (0..Wrapper::ALL.len()).map(|n| format!("run{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        lb_userspace::lab::veth(namespace, name, namespace, &format!("end{n}"))?;
        // Nothing else may come in: the kernel sends router solicitations, which would be run and counted too.
        namespace.down(name)?;
    }
    Ok(names)
}

/// The interface that packets come in through, and leave.
pub(crate) const INGRESS: &str = "lan0";
