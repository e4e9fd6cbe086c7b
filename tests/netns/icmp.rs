//! Pings, and errors on the way: what `ping` and `traceroute` see of a service, and downloads past a narrow link.

use lb_tests::agent::{Balancer, Ran, binary};
use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::{Nginx, until_served};
use lb_tests::programs::{curl, noise};
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::sync::Arc;

/// What fits through the narrow link, bytes of an IP packet: IPv6 asks for 1280 at least (RFC 8200, section 5).
const NARROW: u32 = 1300;
/// Connections that download past it.
const FETCHES: usize = 24;

/// Runs a program and sees that it succeeds.
#[track_caller]
fn run(ns: &Namespace, program: &str, arguments: &[&str]) -> String {
    let ran = Ran::of(ns.command(program).args(arguments));
    assert_eq!(
        ran.code,
        0,
        "{program} {} in {}: {}{}",
        arguments.join(" "),
        ns.name(),
        ran.stdout,
        ran.stderr
    );
    ran.stdout
}

/// `lb pass` on an interface: what the balancer sends back by the way that it came (`XDP_TX`) a veth takes only so.
struct Pass(String);

impl Pass {
    fn on(ns: &Namespace, link: &str) -> Self {
        let pins = format!("/sys/fs/bpf/{}", ns.name());
        run(ns, &binary().display().to_string(), &["pass", link, "--pins", &pins]);
        Self(format!("{pins}-pass"))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // The link goes with its pin.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn count(lb: &Balancer, reason: &str) -> u64 {
    lb.reasons().get(reason).copied().unwrap_or(0)
}

#[test]
fn a_service_answers_pings_without_backends_or_the_kernel() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let _pass = Pass::on(&net.router, "l0");
    for family in Family::BOTH {
        let (name, vip) = (family.pick("web4", "web6"), Routed::vip(family));
        // Nothing else answers: the address is on no interface.
        let listen = format!("tcp://{}", family.socket(vip, 80));
        net.lb.ok(&["service", "add", name, &listen, "--announce", "none"]);
        let before = count(&net.lb, "echo-answered");
        for size in ["0", "56", "1400"] {
            let seen = run(&net.client, "ping", &["-n", "-c", "3", "-i", "0.01", "-W", "5", "-s", size, vip]);
            assert!(seen.contains(" 0% packet loss"), "{seen}");
            // One router decrements what left as 64; a shorter ping has no room for a time, and thus none to print.
            assert!(seen.contains("ttl=63"), "{seen}");
            assert!(!seen.contains("wrong data byte") && !seen.contains("BAD CHECKSUM"), "{seen}");
        }
        assert_eq!(count(&net.lb, "echo-answered") - before, 9);

        net.lb.ok(&["service", "set", name, "--echo", "false"]);
        let ran = Ran::of(net.client.command("ping").args(["-n", "-c", "1", "-W", "1", vip]));
        assert_ne!(ran.code, 0, "nobody has the address: {}", ran.stdout);
        assert_eq!(count(&net.lb, "echo-answered") - before, 9);
        net.lb.ok(&["service", "set", name, "--set", "echo=true"]);
        run(&net.client, "ping", &["-n", "-c", "1", "-W", "5", vip]);
    }
    net.assert_clean(&[]);
}

/// A datagram for a port where nobody listens: the backend says so, and the client hears it from the service.
#[test]
fn traceroute_arrives_at_the_service() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    for family in Family::BOTH {
        let vip = Routed::vip(family);
        let listen = format!("udp://{}", family.socket(vip, 53));
        let backends = [0, 1].map(|number| family.socket(Routed::backend(family, number), 53));
        let name = family.pick("dns4", "dns6");
        net.lb.ok(&[
            "service",
            "add",
            name,
            &listen,
            "--announce",
            "none",
            "--backend",
            &backends[0],
            "--backend",
            &backends[1],
        ]);
        net.lb.until_ready(name);
        let before = count(&net.lb, "icmp-returned");
        // Always to the same port: one flow.
        let seen =
            run(&net.client, "traceroute", &["-n", "-q", "1", "-N", "1", "-w", "5", "-U", "-p", "53", vip]);
        let hops: Vec<_> = seen.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(hops, [family.pick("10.0.1.1", "fd00:1::1"), vip], "{seen}");
        assert!(count(&net.lb, "icmp-returned") > before, "{:?}", net.lb.reasons());
        // A program's own socket hears it too: its kernel found the flow in what was embedded.
        let socket = net
            .client
            .run(|| std::net::UdpSocket::bind(family.pick("0.0.0.0:0", "[::]:0")))
            .unwrap()
            .unwrap();
        socket.connect(family.socket(vip, 53)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        socket.send(b"anybody there?").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
    net.assert_clean(&[]);
}

/// Makes the link between router and client narrow, and lets the client say that it takes whole segments: then only the
/// router knows better.
fn narrow(client: &Namespace, router: &Namespace) {
    client.mtu("eth0", NARROW).unwrap();
    router.mtu("c0", NARROW).unwrap();
    for (family, gateway, mss) in [("-4", "10.0.1.1", "1460"), ("-6", "fd00:1::1", "1440")] {
        let route = ["route", "replace", "default", "via", gateway, "dev", "eth0", "advmss", mss];
        run(client, "ip", &[&[family], &route[..]].concat());
    }
}

/// Downloads larger than a segment, each by a connection of its own.
#[track_caller]
fn download(client: &Namespace, lb: &Balancer, vip: &str, servers: &[Nginx]) {
    let content = noise(300_000);
    servers.iter().for_each(|server| server.put("file", &content));
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("#1");
    let url = format!("http://{vip}/file?[1-{FETCHES}]");
    curl(client, &["-H", "Connection: close", "-o", into.to_str().unwrap(), &url]);
    for number in 1..=FETCHES {
        assert!(std::fs::read(directory.path().join(number.to_string())).unwrap() == content);
    }
    let each = until_served(servers, "GET /file", FETCHES);
    assert!(each.iter().all(|served| *served > 0), "one backend served nothing: {each:?}");
    // Each backend has to be told once; it remembers for all connections.
    assert!(count(lb, "icmp-forwarded") >= servers.len() as u64, "{:?}", lb.reasons());
}

/// Each backend knows what fits on the way to the client.
#[track_caller]
fn assert_told(backends: &[Arc<Namespace>], client: &str) {
    for backend in backends {
        let route = run(backend, "ip", &["route", "get", client]);
        assert!(route.contains(&format!("mtu {NARROW}")), "{}: {route}", backend.name());
    }
}

fn start(backends: &[Arc<Namespace>; 2], listen: impl Fn(usize) -> String) -> Vec<Nginx> {
    let start = |number: usize| Nginx::start(&backends[number], &format!("b{number}"), &[listen(number)]);
    (0..backends.len()).map(start).collect()
}

fn past_a_narrow_link(family: Family) {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    narrow(&net.client, &net.router);
    let servers = start(&net.backends, |number| family.socket(Routed::backend(family, number), 80));
    net.add_service("web", family, &[]);
    download(&net.client, &net.lb, family.pick("192.0.2.10", "[2001:db8::10]"), &servers);
    assert_told(&net.backends, Routed::client_address(family));
    net.assert_clean(&[]);
}

#[test]
fn nat_backends_learn_of_a_narrow_link_ipv4() {
    past_a_narrow_link(Family::V4);
}

#[test]
fn nat_backends_learn_of_a_narrow_link_ipv6() {
    past_a_narrow_link(Family::V6);
}

/// Replies go past the balancer, but what a router says about them comes to the service's address.
#[test]
fn direct_return_learns_of_a_narrow_link() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    narrow(&net.client, &net.router);
    for family in Family::BOTH {
        let servers = start(&net.backends, |_| family.socket(Lan::vip(family), 80));
        net.add_service(family.pick("web4", "web6"), family, &["--mode", "l2"]);
        download(&net.client, &net.lb, family.pick("10.0.2.100", "[fd00:2::100]"), &servers);
        assert_told(&net.backends, family.pick("10.0.1.2", "fd00:1::2"));
    }
    net.assert_clean(&[]);
}
