//! Modes ipip and gue: real clients and servers, packets taken out of others by `lb decap` on the backends.

use lb_tests::agent::{Ran, binary};
use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::{Nginx, until_served};
use lb_tests::programs::{curl, noise, reaches};
use lb_tests::require::root;
use lb_tests::routed::{BACK, Routed};
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of an upload that a path must carry.
const UPLOAD: usize = 10 << 20;
/// Requests, each by a connection of its own.
const REQUESTS: usize = 40;

/// `lb decap` or `lb pass` on a machine, until this value ends.
struct Helper<'n> {
    ns: &'n Namespace,
    pins: PathBuf,
}

impl<'n> Helper<'n> {
    fn run(ns: &'n Namespace, verb: &str, arguments: &[&str]) -> Self {
        let this = Self { ns, pins: PathBuf::from(format!("/sys/fs/bpf/{}", ns.name())) };
        this.ok(&[&[verb], arguments].concat());
        this
    }

    fn decap(ns: &'n Namespace, arguments: &[&str]) -> Self {
        Self::run(ns, "decap", &[&["eth0"], arguments].concat())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let mut command = self.ns.command(binary());
        let ran = Ran::of(command.args(arguments).arg("--pins").arg(&self.pins));
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// How often an outcome of `lb decap` was.
    fn count(&self, outcome: &str) -> u64 {
        let all: serde_json::Value = serde_json::from_str(&self.ok(&["decap", "-o", "json"])).unwrap();
        all[0]["counts"][outcome].as_u64().unwrap()
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        for verb in ["decap", "pass"] {
            let _ = std::fs::remove_dir_all(format!("{}-{verb}", self.pins.display()));
        }
    }
}

fn start(backends: &[Arc<Namespace>; 2], listen: &str) -> Vec<Nginx> {
    let start = |number: usize| Nginx::start(&backends[number], &format!("b{number}"), &[listen.to_owned()]);
    (0..backends.len()).map(start).collect()
}

/// Requests and an upload whose segments are larger than what fits: the client must be told.
#[track_caller]
fn serve(client: &Namespace, client_address: &str, vip: &str, servers: &[Nginx]) {
    let upload = noise(UPLOAD);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &upload).unwrap();
    curl(client, &["-T", file.path().to_str().unwrap(), &format!("http://{vip}/up/large")]);
    until_served(servers, "PUT /up/large", 1);
    let arrived = servers.iter().find_map(|server| std::fs::read(server.www().join("up/large")).ok());
    assert!(arrived.is_some_and(|arrived| arrived == upload), "other bytes arrived");

    for server in servers {
        server.put("page", &noise(100_000));
    }
    let url = format!("http://{vip}/page?[1-{REQUESTS}]");
    let parallel = ["--parallel", "--parallel-max", "20", "-H", "Connection: close", "-o", "/dev/null"];
    curl(client, &[&parallel[..], &[&url]].concat());
    let each = until_served(servers, "GET /page", REQUESTS);
    assert!(each.iter().all(|served| *served > 0), "one backend served nothing: {each:?}");
    for request in servers.iter().flat_map(Nginx::requests).filter(|r| !r.request.is_empty()) {
        assert_eq!(request.client, client_address, "{request:?}");
    }
}

/// One segment; `outer` is the family of the backends' addresses.
fn one_arm(mode: &str, inner: Family, outer: Family) {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    let servers = start(&net.backends, &inner.socket(Lan::vip(inner), 80));
    let decaps = net.backends.each_ref().map(|backend| {
        Helper::decap(backend, &["--from", outer.pick("10.0.2.2", "fd00:2::2"), "--kind", mode])
    });
    let listen = format!("tcp://{}", inner.socket(Lan::vip(inner), 80));
    let [one, two] = [0, 1].map(|number| outer.socket(Lan::backend(outer, number), 80));
    net.lb.ok(&["service", "add", "web", &listen, "--mode", mode, "--backend", &one, "--backend", &two]);
    net.lb.until_ready("web");
    let vip = inner.pick("10.0.2.100", "[fd00:2::100]");
    serve(&net.client, inner.pick("10.0.1.2", "fd00:1::2"), vip, &servers);

    let counted = &net.lb.stats().services[0].counters;
    assert_eq!(counted.back_packets, 0, "replies took the way of the requests");
    let opened: u64 = decaps.iter().map(|decap| decap.count("opened")).sum();
    assert_eq!(opened, counted.packets, "every packet that was sent came out of another");
    assert!(net.lb.reasons()["told-too-big"] > 0, "nobody was told that packets are too big");
    net.assert_clean(&[]);

    // Detached, the kernel gets what it has no use for.
    for decap in &decaps {
        decap.ok(&["decap", "eth0", "--detach"]);
    }
    assert!(!reaches(&net.client, &format!("http://{vip}/id")));
}

#[test]
fn ipip_ipv4() {
    one_arm("ipip", Family::V4, Family::V4);
}

#[test]
fn ipip_ipv6() {
    one_arm("ipip", Family::V6, Family::V6);
}

#[test]
fn gue_ipv4_in_ipv6() {
    one_arm("gue", Family::V4, Family::V6);
}

#[test]
fn gue_ipv6_in_ipv4() {
    one_arm("gue", Family::V6, Family::V4);
}

/// Links to the backends that carry less than those of clients: 10 MB go up because the client is told.
fn narrow(mode: &str, family: Family) {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    for (backend, link) in net.backends.iter().zip(BACK) {
        backend.mtu("eth0", 1400).unwrap();
        net.lb.ns.mtu(link, 1400).unwrap();
        let vip = Routed::vip(family);
        backend.address("lo", &format!("{vip}/{}", family.pick("32", "128"))).unwrap();
    }
    // Answers go back out of the interface that packets came by.
    let _pass = Helper::run(&net.router, "pass", &["l0"]);
    let servers = start(&net.backends, &family.socket(Routed::vip(family), 80));
    let decaps = net
        .backends
        .each_ref()
        .map(|backend| Helper::decap(backend, &["--from", family.pick("198.18.0.0/15", "2001:db8:f::/64")]));
    let file = net.lb.directory().join("lb.toml");
    let [one, two] = [0, 1].map(|number| family.socket(Routed::backend(family, number), 80));
    let text = format!(
        "[agent]\nencap-source = [\"198.18.0.0/15\", \"2001:db8:f::/64\"]\n\
         [[service]]\nname = \"web\"\nlisten = \"tcp://{}\"\nmode = \"{mode}\"\nannounce = \"none\"\n\
         [[service.backend]]\naddress = \"{one}\"\n[[service.backend]]\naddress = \"{two}\"\n",
        family.socket(Routed::vip(family), 80)
    );
    std::fs::write(&file, text).unwrap();
    net.lb.ok(&["apply", "-f", file.to_str().unwrap()]);
    net.lb.until_ready("web");
    let vip = family.pick("192.0.2.10", "[2001:db8::10]");
    serve(&net.client, Routed::client_address(family), vip, &servers);
    let told = net.lb.reasons()["told-too-big"];
    assert!(told > 0, "nobody was told that packets are too big");
    let opened: u64 = decaps.iter().map(|decap| decap.count("opened")).sum();
    assert_eq!(opened, net.lb.stats().services[0].counters.packets);
    net.assert_clean(&[]);
}

#[test]
fn a_narrow_path_ipip_ipv4() {
    narrow("ipip", Family::V4);
}

#[test]
fn a_narrow_path_gue_ipv6() {
    narrow("gue", Family::V6);
}

/// Whom the program does not know it does nothing for.
#[test]
fn others_are_passed() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    let _servers = start(&net.backends, &Family::V4.socket(Lan::vip(Family::V4), 80));
    let decaps = net.backends.each_ref().map(|backend| Helper::decap(backend, &["--from", "10.0.2.3"]));
    net.add_service("web", Family::V4, &["--mode", "ipip"]);
    assert!(!reaches(&net.client, "http://10.0.2.100/id"));
    let foreign: u64 = decaps.iter().map(|decap| decap.count("foreign-source")).sum();
    let opened: u64 = decaps.iter().map(|decap| decap.count("opened")).sum();
    assert!(foreign > 0 && opened == 0, "{foreign} foreign, {opened} opened");
    let mut again = net.backends[0].command(binary());
    let ran = Ran::of(again.args(["decap", "eth0", "--from", "10.0.2.2", "--pins"]).arg(&decaps[0].pins));
    assert!(ran.code == 1 && ran.stderr.contains("with other options"), "{}", ran.stderr);
    let same = decaps[0].ok(&["decap", "eth0", "--from", "10.0.2.3"]);
    assert!(same.contains("nothing changed"), "{same}");
    let listed: String = decaps.iter().map(|decap| decap.ok(&["decap"])).collect();
    assert!(listed.contains("10.0.2.3/32") && listed.contains("foreign-source"), "{listed}");
}
