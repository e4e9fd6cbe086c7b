//! What happens, in its order, and what must come of it.

use super::DemoOptions;
use super::client::Load;
use super::ledger::{Books, Outage, Phase};
use super::stage::{READY, Stage};
use super::summary::Summary;
use super::topology::{
    BACK, BACKEND_ECHO_PORT, BACKEND_WEB_PORT, BACKENDS, ECHO_PORT, FRONT, SWITCH_PORT, UPLINK, VIP4, VIP6,
    WEB_PORT, backend_addresses, backend_name,
};
use super::view::{State, distribution, duration};
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The backend that is stopped.
const STOPPED: usize = 1;
/// The backend that is drained.
const DRAINED: usize = 2;
/// Options of every check: fast, so that nobody has to wait to see a failover.
const CHECK: &str = "http:/healthz,interval=200ms,timeout=500ms,rise=1,fall=2";
/// How far away a detection is that has not happened.
const NOT_YET: Duration = Duration::from_hours(1);

/// How long each part is shown.
#[derive(Clone, Copy, Debug)]
struct Times {
    steady: Duration,
    stopped: Duration,
    drained: Duration,
    without_agent: Duration,
    adopted: Duration,
    back: Duration,
}

impl Times {
    fn of(options: &DemoOptions) -> Self {
        let times = |ms: [u64; 6]| {
            let [steady, stopped, drained, without_agent, adopted, back] = ms.map(Duration::from_millis);
            Self { steady, stopped, drained, without_agent, adopted, back }
        };
        if options.quick {
            times([1500, 700, 700, 1500, 300, 1000])
        } else {
            times([10_000, 6000, 6000, 6000, 3000, 8000])
        }
    }
}

/// A service of the demonstration.
struct Service {
    name: &'static str,
    protocol: &'static str,
    listen: SocketAddr,
    /// Position of its family in [`backend_addresses`].
    family: usize,
    backend_port: u16,
    check: String,
    /// More words for the command that adds it.
    more: &'static str,
}

/// The families that are wanted, in words.
pub(super) fn families(options: &DemoOptions) -> &'static str {
    match (options.ipv4, options.ipv6) {
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        _ => "IPv4 and IPv6",
    }
}

/// The services of the families that are wanted.
fn services(options: &DemoOptions) -> Result<Vec<Service>> {
    let (v4, v6): (IpAddr, IpAddr) = (VIP4.parse()?, VIP6.parse()?);
    let web = |name, vip: IpAddr| Service {
        name,
        protocol: "tcp",
        listen: (vip, WEB_PORT).into(),
        family: usize::from(vip.is_ipv6()),
        backend_port: BACKEND_WEB_PORT,
        check: CHECK.to_owned(),
        more: "",
    };
    // Datagrams have no answer of their own that a check could wait for: the web server's health is the machine's.
    // Each is a flow of its own, so there is nothing to remember.
    let echo = |name, vip: IpAddr| Service {
        protocol: "udp",
        listen: (vip, ECHO_PORT).into(),
        backend_port: BACKEND_ECHO_PORT,
        check: format!("{CHECK},port={BACKEND_WEB_PORT}"),
        more: " --tracking never",
        ..web(name, vip)
    };
    let all = [web("web", v4), web("web6", v6), echo("echo", v4), echo("echo6", v6)];
    let wanted = |service: &Service| {
        if service.family == 0 { !options.ipv6 || options.ipv4 } else { !options.ipv4 || options.ipv6 }
    };
    Ok(all.into_iter().filter(wanted).collect())
}

impl Service {
    fn backend(&self, backend: usize) -> SocketAddr {
        (backend_addresses(backend)[self.family], self.backend_port).into()
    }

    fn add(&self) -> String {
        let backends = (0..BACKENDS).map(|backend| format!(" --backend {}", self.backend(backend)));
        format!(
            "service add {} {}://{} --check {}{}{}",
            self.name,
            self.protocol,
            self.listen,
            self.check,
            self.more,
            backends.collect::<String>()
        )
    }
}

/// Plays it. What came of it is returned, and the stage as it is then.
///
/// # Errors
///
/// Interrupted, or something did not happen at all.
pub(super) fn play(stage: &mut Stage, options: &DemoOptions) -> Result<Summary> {
    let mut story =
        Story { services: services(options)?, times: Times::of(options), stage, faults: Vec::new() };
    story.balancer()?;
    story.steady()?;
    story.stop_backend()?;
    story.drain()?;
    let without_agent = story.kill_agent()?;
    story.backend_returns()?;
    story.end(without_agent)
}

struct Story<'a> {
    stage: &'a mut Stage,
    services: Vec<Service>,
    times: Times,
    faults: Vec<String>,
}

impl Story<'_> {
    fn balancer(&mut self) -> Result<()> {
        let stage = &mut *self.stage;
        stage.screen.step(2, "The balancer: an agent, two interfaces, and a service for each protocol");
        // The far ends of the attached interfaces: without a program there, a veth takes no frames from XDP.
        for (end, interface) in [(&stage.network.client, UPLINK), (&stage.network.switch, SWITCH_PORT)] {
            stage.screen.command(&format!("nsenter --net={} lb pass {interface}", end.path().display()));
            stage.tool.pass(end, interface)?;
        }
        stage.screen.note("veth needs that at its far ends; a network card does not");
        stage.screen.command("lb agent &");
        stage.start_agent()?;
        stage.wait("the agent to answer", READY, |report, _| report.agent)?;
        stage.lb(&format!("attach {FRONT} {BACK}"))?;
        for (number, service) in self.services.iter().enumerate() {
            match number {
                0 => stage.lb(&service.add())?,
                _ => stage.lb_like_before(&service.add())?,
            }
        }
        let asked = Instant::now();
        stage.wait("every backend to be up", READY, |report, _| {
            (0..BACKENDS).all(|backend| report.is(backend, State::Up))
        })?;
        stage.screen.good(&format!(
            "{BACKENDS} backends are up, {} after the last command",
            duration(asked.elapsed())
        ));
        Ok(())
    }

    fn load(&self) -> Load {
        let listening = |protocol: &str| {
            self.services
                .iter()
                .filter(|service| service.protocol == protocol)
                .map(|service| service.listen)
                .collect()
        };
        Load {
            web: listening("tcp"),
            echo: listening("udp"),
            connections: 200,
            every: Duration::from_millis(200),
            short_rate: 100,
            datagram_rate: 40,
        }
    }

    fn steady(&mut self) -> Result<()> {
        let load = self.load();
        let stage = &mut *self.stage;
        stage.screen.step(3, "Traffic");
        stage.screen.note(&format!(
            "{} connections that stay, {} new ones and {} datagrams a second",
            load.connections, load.short_rate, load.datagram_rate
        ));
        let wanted = load.connections as u64;
        stage.ledger.phase("all four up");
        stage.title("Four backends, each with its share");
        stage.start_traffic(load)?;
        stage.wait("the connections to be open", READY, move |_, books| {
            books.open.iter().sum::<u64>() >= wanted
        })?;
        stage.watch(self.times.steady)?;
        let opened = last(&self.stage.ledger.snapshot())?.opened;
        if let Some(backend) = (0..BACKENDS).find(|backend| opened[*backend] == 0) {
            self.faults.push(format!("{} got no connection", backend_name(backend)));
        }
        self.stage.screen.good(&distribution(opened));
        Ok(())
    }

    fn stop_backend(&mut self) -> Result<()> {
        let stage = &mut *self.stage;
        let name = backend_name(STOPPED);
        stage.screen.step(4, &format!("{name} stops: its sockets are closed, and what was on it is gone"));
        stage.ledger.phase(format!("{name} stopped"));
        stage.title(format!("{name} was stopped"));
        let stopped = Instant::now();
        stage.outage = Some(Outage { backend: STOPPED, stopped, detected: stopped + NOT_YET });
        stage.backends[STOPPED] = None;
        stage.wait("the health check to notice", READY, |report, _| report.is(STOPPED, State::Down))?;
        let detected = Instant::now();
        stage.outage = Some(Outage { backend: STOPPED, stopped, detected });
        stage.ledger.close(STOPPED, true);
        let before = stage.ledger.snapshot();
        stage.screen.good(&format!(
            "noticed {} after the stop, by two checks in a row",
            duration(detected - stopped)
        ));
        stage.watch(self.times.stopped)?;
        let books = stage.ledger.snapshot();
        let judgement = books.judge(stage.outage);
        stage.screen.good(&format!(
            "{} connections ended with {name}, {} attempts met it before that, {} losses since",
            judgement.with_backend.len(),
            judgement.before_detection.len(),
            judgement.faults.len()
        ));
        stage.screen.good(&distribution(new_connections(&before, &books)));
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let stage = &mut *self.stage;
        let name = backend_name(DRAINED);
        stage.screen.step(5, &format!("{name} is drained: it keeps its connections and gets no new ones"));
        stage.ledger.phase(format!("{name} drained"));
        stage.title(format!("{name} drains"));
        for service in &self.services {
            stage.lb(&format!("backend drain {} {}", service.name, service.backend(DRAINED)))?;
        }
        stage.ledger.close(DRAINED, true);
        let before = stage.ledger.snapshot();
        stage.watch(self.times.drained)?;
        let kept = stage.ledger.snapshot().open[DRAINED];
        stage.screen.good(&format!(
            "{kept} of {} connections on {name} live on, {} new ones came",
            before.open[DRAINED],
            stage.ledger.snapshot().strays[DRAINED]
        ));
        if let Some(traffic) = &stage.traffic {
            traffic.retire(Some(DRAINED));
        }
        stage.title(format!("the connections on {name} end in their own time"));
        stage.wait("the drained backend to be empty", READY, |_, books| books.open[DRAINED] == 0)?;
        if let Some(traffic) = &stage.traffic {
            traffic.retire(None);
        }
        let faults = stage.ledger.snapshot().judge(stage.outage).faults.len();
        stage.screen.good(&format!("{name} is empty: every connection ended by itself, {faults} were lost"));
        stage.ledger.close(DRAINED, false);
        for service in &self.services {
            stage.lb(&format!("backend undrain {} {}", service.name, service.backend(DRAINED)))?;
        }
        Ok(())
    }

    /// How long there was no agent.
    fn kill_agent(&mut self) -> Result<Duration> {
        let stage = &mut *self.stage;
        let before = stage.report();
        stage.screen.step(6, "The agent is killed: the kernel goes on balancing");
        stage.ledger.phase("agent killed");
        stage.title("no agent: what is in the kernel stays and works");
        stage.screen.command(&format!("kill -9 {}", before.pid));
        let killed = Instant::now();
        stage.kill_agent()?;
        stage.watch(self.times.without_agent)?;
        let requests = last(&stage.ledger.snapshot())?.requests;
        stage.screen.good(&format!(
            "{} requests were answered in {} without an agent",
            super::view::thousands(requests),
            duration(killed.elapsed())
        ));
        stage.screen.command("lb agent &");
        stage.start_agent()?;
        stage.wait("the new agent to answer", READY, move |report, _| {
            report.agent && report.pid != before.pid
        })?;
        let without = killed.elapsed();
        let report = stage.report();
        stage.title("a new agent goes on where the old one was");
        if report.started == "adopted" {
            stage.screen.good("the new agent found everything in the kernel and adopted it as it is");
        } else {
            self.faults
                .push(format!("the new agent did not adopt what was there: it says \"{}\"", report.started));
        }
        self.stage.watch(self.times.adopted)?;
        Ok(without)
    }

    fn backend_returns(&mut self) -> Result<()> {
        let stage = &mut *self.stage;
        let name = backend_name(STOPPED);
        stage.screen.step(7, &format!("{name} comes back"));
        stage.ledger.phase(format!("{name} back"));
        stage.title(format!("{name} is back"));
        stage.ledger.close(STOPPED, false);
        let started = Instant::now();
        stage.start_backend(STOPPED)?;
        stage.wait("the backend to be up again", READY, |report, _| report.is(STOPPED, State::Up))?;
        let up = Instant::now();
        let before = stage.ledger.snapshot();
        stage.watch(self.times.back)?;
        let fresh = new_connections(&before, &stage.ledger.snapshot());
        stage.screen.good(&format!("up {} after its start; new connections:", duration(up - started)));
        stage.screen.good(&distribution(fresh));
        if fresh[STOPPED] == 0 {
            self.faults.push(format!("{name} came back and got no connection"));
        }
        Ok(())
    }

    fn end(mut self, without_agent: Duration) -> Result<Summary> {
        self.stage.end_traffic()?;
        let books = self.stage.ledger.snapshot();
        for (backend, strays) in books.strays.iter().enumerate().filter(|(_, strays)| **strays > 0) {
            let name = backend_name(backend);
            self.faults.push(format!("{strays} new connections went to {name} when it was to get none"));
        }
        Ok(Summary {
            judgement: books.judge(self.stage.outage),
            outage: self.stage.outage,
            without_agent: Some(without_agent),
            checksum_errors: self.stage.network.checksum_errors()?,
            faults: self.faults,
            books,
        })
    }
}

/// The phase that goes on.
fn last(books: &Books) -> Result<&Phase> {
    books.phases.last().context("no phase has begun")
}

fn new_connections(before: &Books, after: &Books) -> [u64; BACKENDS] {
    std::array::from_fn(|backend| after.opened[backend] - before.opened[backend])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: DemoOptions) -> Vec<&'static str> {
        services(&options).unwrap().iter().map(|service| service.name).collect()
    }

    #[test]
    fn one_family_or_both() {
        let both = DemoOptions::default();
        assert_eq!(names(both), ["web", "web6", "echo", "echo6"]);
        assert_eq!(names(DemoOptions { ipv4: true, ..both }), ["web", "echo"]);
        assert_eq!(names(DemoOptions { ipv6: true, ..both }), ["web6", "echo6"]);
        assert_eq!(names(DemoOptions { ipv4: true, ipv6: true, ..both }), names(both));
    }

    #[test]
    fn a_service_is_added_as_anybody_would() {
        let services = services(&DemoOptions { ipv6: true, ..DemoOptions::default() }).unwrap();
        let command = services[1].add();
        assert!(command.starts_with("service add echo6 udp://[2001:db8::10]:7 --check http:/healthz,"));
        assert!(command.contains(",port=8080 --tracking never --backend [fd00:11::11]:7007"), "{command}");
    }
}
