//! Thousands of connections through every kind of change: only those of a backend that dies may break.

use lb_tests::crowd::server::{self, Server};
use lb_tests::crowd::{Crowd, Group, Over};
use lb_tests::require::root;
use lb_tests::rings;
use lb_tests::segment::{ARM, CLIENT, DIRECT, Segment, TRANSLATED};
use lb_tests::topo::Family;
use lb_userspace::api::types::HealthState;
use lb_userspace::lab::wait;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;

/// Backends at first; one more is added.
const BACKENDS: usize = 4;
/// Seldom enough not to be the load, and patient: a busy machine must not look like a dead backend.
const CHECK: &str = "http:/healthz,port=9000,interval=500ms,timeout=3s,rise=2,fall=3";
/// Short enough that windows open and close within the test; far longer than a connection's silence.
const SHORT: &str = "idle-timeout=8s";

/// A service: name, protocol, mode, IP version, options, connections.
struct Served(&'static str, Over, bool, Family, &'static [&'static str], usize);

const KEEP: &[&str] = &["--on-down", "keep"];
const SERVICES: [Served; 6] = [
    Served("nat4", Over::Tcp, false, Family::V4, &["--on-down", "keep", "--set", SHORT], 1500),
    Served("nat6", Over::Tcp, false, Family::V6, KEEP, 1500),
    Served("l24", Over::Tcp, true, Family::V4, KEEP, 400),
    // Connections of a backend whose check fails are given up here.
    Served("l26", Over::Tcp, true, Family::V6, &["--on-down", "rehash"], 400),
    Served("udp4", Over::Udp, false, Family::V4, &["--on-down", "keep", "--set", SHORT], 150),
    Served("udp6", Over::Udp, false, Family::V6, &["--on-down", "keep", "--set", SHORT], 150),
];

impl Served {
    fn listen(&self) -> SocketAddr {
        let vip = if self.2 { DIRECT } else { TRANSLATED };
        let port = if self.1 == Over::Tcp { 443 } else { 53 };
        self.3.socket(self.3.pick(vip[0], vip[1]), port).parse().unwrap()
    }

    fn backend(&self, number: usize) -> String {
        let port = match (self.1, self.2) {
            (Over::Udp, _) => server::DATAGRAMS,
            (Over::Tcp, false) => server::TRANSLATED,
            (Over::Tcp, true) => server::DIRECT,
        };
        self.3.socket(&Segment::backend(self.3, number), port)
    }

    fn add(&self, net: &Segment) {
        let scheme = if self.1 == Over::Tcp { "tcp" } else { "udp" };
        let listen = format!("{scheme}://{}", self.listen());
        let backends: Vec<String> = (0..BACKENDS).map(|number| self.backend(number)).collect();
        let mode = if self.2 { "l2" } else { "nat" };
        let mut arguments = vec!["service", "add", self.0, &listen, "--mode", mode, "--check", CHECK];
        backends.iter().for_each(|backend| arguments.extend(["--backend", backend]));
        arguments.extend(self.4);
        net.balancers[0].ok(&arguments);
        net.balancers[0].until_ready(self.0);
    }

    fn group(&self) -> Group {
        let from = CLIENT[usize::from(self.2)];
        let from = self.3.pick(from[0], from[1]).parse().unwrap();
        Group { service: self.0, over: self.1, from, to: self.listen(), count: self.5 }
    }

    fn open_windows(&self, net: &Segment) -> usize {
        let protocol = if self.1 == Over::Tcp { 6 } else { 17 };
        let slots = rings::slots(net.balancers[0].pins(), protocol, self.listen());
        slots.iter().filter(|slot| !slot.settled()).count()
    }
}

/// Runs a verb about a backend of every service.
fn each(net: &Segment, verb: &[&str], number: usize, options: &[&str]) {
    for served in &SERVICES {
        net.balancers[0].ok(&[verb, &[served.0, &served.backend(number)], options].concat());
    }
}

fn until_health(net: &Segment, number: usize, health: HealthState) {
    for served in &SERVICES {
        let address = served.backend(number);
        net.balancers[0].until(served.0, &format!("{address} to be {health:?}"), |service| {
            service.backends.iter().any(|b| b.address == address && b.health == health)
        });
    }
}

fn builds(net: &Segment) -> Vec<String> {
    let maps = lb_userspace::dataplane::pins::Pins::new(net.balancers[0].pins()).map("x");
    let programs = maps.ancestors().nth(2).unwrap().join("programs");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    std::fs::read_dir(programs).unwrap().map(name).collect()
}

#[test]
fn only_connections_of_a_backend_that_dies_break() {
    if !root() {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut net = Segment::new(1, BACKENDS + 1);
    net.balancers[0].start();
    net.balancers[0].ok(&["attach", ARM]);
    let mut servers: Vec<_> =
        net.backends.iter().zip(1..).map(|(ns, name)| Some(Server::start(ns, name))).collect();
    SERVICES.iter().for_each(|served| served.add(&net));
    let crowd = Crowd::open(&net.client, &SERVICES.each_ref().map(Served::group));
    for served in &SERVICES {
        assert_eq!(served.open_windows(&net), 0, "{}: nothing has changed yet", served.0);
    }

    each(&net, &["backend", "add"], 4, &[]);
    SERVICES.iter().for_each(|served| net.balancers[0].until_ready(served.0));
    for served in &SERVICES {
        assert!(served.open_windows(&net) > 0, "{}: a backend that was added opens windows", served.0);
    }
    crowd.again("answers after a backend was added");
    each(&net, &["backend", "set"], 1, &["--weight", "300"]);
    crowd.again("answers after a weight changed");
    each(&net, &["backend", "rm"], 2, &["--drain", "10m"]);
    crowd.again("answers while a backend drains");

    let flapping = servers[1].as_ref().unwrap();
    flapping.set_healthy(false);
    until_health(&net, 1, HealthState::Down);
    crowd.again("answers while a check fails");
    flapping.set_healthy(true);
    until_health(&net, 1, HealthState::Up);
    crowd.again("answers after a check failed");

    net.balancers[0].kill();
    crowd.again("answers without an agent");
    net.balancers[0].start();
    assert_eq!(net.balancers[0].status().agent.started, "adopted");
    crowd.again("answers after the agent came back");

    let before = builds(&net);
    net.balancers[0].stop();
    net.balancers[0].start_with(&["--log-drops"]);
    let after = builds(&net);
    assert!(before != after && after.iter().any(|build| build.ends_with("-logs")), "{before:?} {after:?}");
    crowd.again("answers after another build took over");

    for served in SERVICES.iter().filter(|served| served.4.contains(&SHORT)) {
        let closed = || served.open_windows(&net) == 0;
        wait::until("the windows to close", lb_tests::agent::PATIENCE, closed).unwrap();
    }
    crowd.again("answers after the windows closed");

    // Nobody is ever left without the backend that dies: the others have been through everything.
    let died = 4_u8;
    servers[3] = None;
    until_health(&net, 3, HealthState::Down);
    let own = |member: &&std::sync::Arc<lb_tests::crowd::Member>| member.backend() == died;
    wait::until("the connections of the dead backend to end", lb_tests::agent::PATIENCE, || {
        crowd.members().iter().filter(own).all(|member| member.broken().is_some())
    })
    .unwrap();
    crowd.again("answers after a backend died");

    let connections = crowd.members().len();
    let broken: Vec<_> = crowd.broken().collect();
    let lost = |service: &str, backend: u8| backend == died || (service, backend) == ("l26", 2);
    let own = broken.iter().filter(|member| lost(member.service, member.backend())).count();
    println!(
        "{connections} connections, {} broken, of which {own} on the backend that died, or that `rehash` gave up",
        broken.len()
    );
    let others: Vec<_> = broken.iter().filter(|member| !lost(member.service, member.backend())).collect();
    assert!(others.is_empty(), "{} connections broke that need not: {others:#?}", others.len());
    let used = |served: &Served| {
        (1..=BACKENDS as u8).all(|name| {
            crowd.members().iter().any(|member| member.service == served.0 && member.backend() == name)
        })
    };
    assert!(SERVICES.iter().all(used), "a backend had no connection, so nothing was shown about it");
    net.assert_clean(&[]);
}
