//! Files down and up, through every mode and both IP versions, with the offloads that veths have by default.

use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::{Nginx, until_served};
use lb_tests::programs::{curl, noise};
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::path::Path;
use std::sync::Arc;

/// A file of more than one segment, whatever offloads there are.
const LARGE: usize = 5 << 20;
/// Connections that fetch the large file.
const LARGE_FETCHES: usize = 4;
/// Connections that fetch a smaller one.
const FETCHES: usize = 40;
/// A file for them.
const SMALL: usize = 200_000;
/// Bytes of an upload: more than one window.
const UPLOAD: usize = (1 << 20) + 12_345;
/// Connections that upload.
const UPLOADS: usize = 40;

/// Fetches and uploads, each by a connection of its own, and compares every byte. Both backends must have served, and
/// have seen the client's own address.
#[track_caller]
fn transfer(client: &Namespace, client_address: &str, vip: &str, servers: &[Nginx]) {
    let directory = tempfile::tempdir().unwrap();
    let (large, small, upload) = (noise(LARGE), noise(SMALL), noise(UPLOAD));
    for server in servers {
        server.put("large", &large);
        server.put("small", &small);
    }
    let path = |name: &str| directory.path().join(name);
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "40", "-H", "Connection: close"];
    for (name, content, count) in [("large", &large, LARGE_FETCHES), ("small", &small, FETCHES)] {
        let url = format!("http://{vip}/{name}?[1-{count}]");
        let into = path(&format!("{name}#1"));
        curl(client, &[&parallel[..], &["-o", into.to_str().unwrap(), &url]].concat());
        for number in 1..=count {
            assert_same(&path(&format!("{name}{number}")), content);
        }
    }
    let each = until_served(servers, "GET /small", FETCHES);
    assert_eq!(each.iter().sum::<usize>(), FETCHES);
    assert!(each.iter().all(|served| *served > 0), "one backend served nothing: {each:?}");

    std::fs::write(path("upload"), &upload).unwrap();
    let source = path("upload").display().to_string();
    let urls: Vec<String> = (0..UPLOADS).map(|number| format!("http://{vip}/up/{number}")).collect();
    let pairs = urls.iter().flat_map(|url| ["-T", source.as_str(), url.as_str()]);
    curl(client, &parallel.into_iter().chain(pairs).collect::<Vec<_>>());
    let each = until_served(servers, "PUT /up/", UPLOADS);
    assert!(each.iter().all(|served| *served > 0), "one backend got no upload: {each:?}");
    for number in 0..UPLOADS {
        let places = servers.iter().map(|server| server.www().join(format!("up/{number}")));
        let found: Vec<_> = places.filter(|place| place.exists()).collect();
        assert_eq!(found.len(), 1, "upload {number} went to several backends, or to none: {found:?}");
        assert_same(&found[0], &upload);
    }
    for request in servers.iter().flat_map(Nginx::requests).filter(|r| !r.request.is_empty()) {
        assert_eq!(request.client, client_address, "{request:?}");
        assert!(matches!(request.status, 200 | 201), "{request:?}");
    }
}

#[track_caller]
fn assert_same(path: &Path, expected: &[u8]) {
    let found = std::fs::read(path).unwrap();
    assert_eq!(found.len(), expected.len(), "length of {}", path.display());
    assert!(found == expected, "{} arrived with other bytes", path.display());
}

fn start(backends: &[Arc<Namespace>; 2], listen: impl Fn(usize) -> String) -> Vec<Nginx> {
    let start = |number: usize| Nginx::start(&backends[number], &format!("b{number}"), &[listen(number)]);
    (0..backends.len()).map(start).collect()
}

fn routed(family: Family) {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let servers = start(&net.backends, |number| family.socket(Routed::backend(family, number), 80));
    net.add_service("web", family, &[]);
    let vip = family.pick("192.0.2.10", "[2001:db8::10]");
    transfer(&net.client, Routed::client_address(family), vip, &servers);
    let counted = &net.lb.stats().services[0].counters;
    assert!(counted.flows >= (FETCHES + UPLOADS + LARGE_FETCHES) as u64, "{counted:?}");
    assert!(counted.back_bytes > (LARGE * LARGE_FETCHES + SMALL * FETCHES) as u64, "{counted:?}");
    net.assert_clean(&[]);
}

#[test]
fn nat_between_networks_ipv4() {
    routed(Family::V4);
}

#[test]
fn nat_between_networks_ipv6() {
    routed(Family::V6);
}

fn one_arm(family: Family, way: Return) {
    if !root() {
        return;
    }
    let net = Lan::attached(way);
    let on = |number| match way {
        Return::Balancer => Lan::backend(family, number),
        Return::Direct => Lan::vip(family),
    };
    let servers = start(&net.backends, |number| family.socket(on(number), 80));
    let mode = match way {
        Return::Balancer => "nat",
        Return::Direct => "l2",
    };
    net.add_service("web", family, &["--mode", mode]);
    let vip = family.pick("10.0.2.100", "[fd00:2::100]");
    transfer(&net.client, family.pick("10.0.1.2", "fd00:1::2"), vip, &servers);
    let counted = &net.lb.stats().services[0].counters;
    match way {
        Return::Balancer => assert!(counted.back_packets > 0, "{counted:?}"),
        Return::Direct => assert_eq!(counted.back_packets, 0, "replies took the way of the requests"),
    }
    net.assert_clean(&[]);
}

#[test]
fn nat_with_one_arm_ipv4() {
    one_arm(Family::V4, Return::Balancer);
}

#[test]
fn nat_with_one_arm_ipv6() {
    one_arm(Family::V6, Return::Balancer);
}

#[test]
fn direct_return_ipv4() {
    one_arm(Family::V4, Return::Direct);
}

#[test]
fn direct_return_ipv6() {
    one_arm(Family::V6, Return::Direct);
}
