//! Two balancers that know nothing of each other: the same seed and the same services make them one.

use lb_tests::crowd::server::Server;
use lb_tests::crowd::{Crowd, Group, Over};
use lb_tests::require::root;
use lb_tests::rings;
use lb_tests::segment::{ARM, CLIENT, DIRECT, Segment, TRANSLATED};
use lb_tests::topo::Family;
use std::net::SocketAddr;

const BACKENDS: usize = 4;
const HELD: usize = 250;

fn listen(family: Family, direct: bool) -> SocketAddr {
    let vip = if direct { DIRECT } else { TRANSLATED };
    family.socket(family.pick(vip[0], vip[1]), if direct { 443 } else { 80 }).parse().unwrap()
}

/// Every service: name, IP version, whether its mode is L2.
const SERVICES: [(&str, Family, bool); 4] = [
    ("l24", Family::V4, true),
    ("l26", Family::V6, true),
    ("nat4", Family::V4, false),
    ("nat6", Family::V6, false),
];

/// Adds a service with its backends in this order, the second of them three times as heavy as the others.
fn add(net: &Segment, balancer: usize, (name, family, direct): (&str, Family, bool), order: &[usize]) {
    let lb = &net.balancers[balancer];
    let mode = if direct { "l2" } else { "nat" };
    lb.ok(&["service", "add", name, &format!("tcp://{}", listen(family, direct)), "--mode", mode]);
    for number in order {
        let port = if direct { 443 } else { 8080 };
        let backend = family.socket(&Segment::backend(family, *number), port);
        lb.ok(&["backend", "add", name, &backend, "--weight", if *number == 1 { "300" } else { "100" }]);
    }
    lb.until_ready(name);
}

#[test]
fn two_balancers_choose_alike_and_a_flow_may_move_between_them() {
    if !root() {
        return;
    }
    let mut net = Segment::new(2, BACKENDS);
    for balancer in &mut net.balancers {
        balancer.start_with(&["--seed", "7"]);
        balancer.ok(&["attach", ARM]);
    }
    let _servers: Vec<_> = net.backends.iter().zip(1..).map(|(ns, name)| Server::start(ns, name)).collect();
    for service in SERVICES {
        add(&net, 0, service, &[0, 1, 2, 3]);
    }
    // The other one has been through more: another order, services and backends that come and go, weights.
    let other = &net.balancers[1];
    other.ok(&["service", "add", "first", "tcp://192.0.2.99:80", "--backend", "10.0.2.12:80"]);
    for service in SERVICES.iter().rev() {
        add(&net, 1, *service, &[3, 1, 0, 2]);
    }
    other.ok(&["service", "rm", "first"]);
    for (name, backend) in [("l24", "10.0.2.12:443"), ("nat6", "[fd00:2::12]:8080")] {
        other.ok(&["backend", "rm", name, backend, "--now"]);
        other.ok(&["backend", "set", name, &backend.replace("12", "13"), "--weight", "7"]);
        other.ok(&["backend", "add", name, backend, "--weight", "300"]);
        other.ok(&["backend", "set", name, &backend.replace("12", "13"), "--weight", "100"]);
        other.until_ready(name);
    }

    for (name, family, direct) in SERVICES {
        let [one, two] = [0, 1].map(|n| rings::backends(net.balancers[n].pins(), 6, listen(family, direct)));
        assert!(one.len() > 1000 && one.iter().all(Option::is_some), "{name}: {} slots", one.len());
        let differ = one.iter().zip(&two).filter(|(one, two)| one != two).count();
        assert_eq!((differ, one.len()), (0, two.len()), "{name}: slots that differ");
    }

    let group = |(service, family, _): (&'static str, Family, bool)| Group {
        service,
        over: Over::Tcp,
        from: family.pick(CLIENT[1][0], CLIENT[1][1]).parse().unwrap(),
        to: listen(family, true),
        count: HELD,
    };
    let crowd = Crowd::open(&net.client, &[group(SERVICES[0]), group(SERVICES[1])]);
    let packets = |balancer: usize| -> u64 {
        net.balancers[balancer].stats().services.iter().map(|service| service.counters.packets).sum()
    };
    assert_eq!(packets(1), 0, "the router sends to the first balancer");
    let routes = [(format!("{}/32", DIRECT[0]), "10.0.2.3"), (format!("{}/128", DIRECT[1]), "fd00:2::3")];
    for (to, via) in &routes {
        net.router.route(to, via).unwrap();
    }
    crowd.again("answers by way of the other balancer");
    assert!(packets(1) >= 2 * HELD as u64, "the other balancer had {} packets", packets(1));
    for (to, _) in &routes {
        net.router.delete_route(to).unwrap();
    }
    let before = packets(0);
    crowd.again("answers by way of the first balancer again");
    assert!(packets(0) > before);
    let broken: Vec<_> = crowd.broken().collect();
    println!("{} connections moved between two balancers and back, {} broken", 2 * HELD, broken.len());
    assert!(broken.is_empty(), "{broken:#?}");
    net.assert_clean(&[]);
}
