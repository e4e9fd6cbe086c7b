//! Each mistake with several ports, and what looks like one and is none.

use crate::config::check;

/// A service with one backend.
fn service(name: &str, listen: &str, backend: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = '{name}'\nlisten = '{listen}'\n{more}\n[[service.backend]]\naddress = '{backend}'\n"
    )
}

fn refusal(text: &str) -> Vec<String> {
    match check(text, "lb.toml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn refuses(text: &str, what: &[&str]) {
    let said = refusal(text).join("\n");
    assert!(!said.is_empty(), "nothing is wrong with\n{text}");
    for what in what {
        assert!(said.contains(what), "{what:?} is not in\n{said}");
    }
}

#[track_caller]
fn takes(text: &str) {
    assert_eq!(refusal(text), [] as [&str; 0], "{text}");
}

#[test]
fn ranges_of_two_services_do_not_overlap() {
    let one = service("one", "tcp://192.0.2.10:8000-8999", "10.0.0.1", "mode = 'l2'");
    let two = |listen: &str| one.clone() + &service("two", listen, "10.0.0.2", "mode = 'l2'");
    refuses(
        &two("tcp://192.0.2.10:8999-9000"),
        &["services one and two both listen on 192.0.2.10:8999", "lb.toml:9:10:"],
    );
    refuses(&two("tcp://192.0.2.10:1-65535"), &["192.0.2.10:8000-8999"]);
    refuses(&two("tcp://192.0.2.10:8000-8999"), &["both listen on tcp://192.0.2.10:8000-8999"]);
    for other in [
        "tcp://192.0.2.10:9000-9001",
        "tcp://192.0.2.10:8500",
        "tcp://192.0.2.10:*",
        "udp://192.0.2.10:8000-8999",
        "tcp://192.0.2.11:8000-8999",
    ] {
        takes(&two(other));
    }
    let any = service("any", "tcp://192.0.2.10:*", "10.0.0.3", "mode = 'l2'");
    refuses(&(any.clone() + &any.replace("any", "too")), &["both listen on tcp://192.0.2.10:*"]);
}

#[test]
fn backends_have_as_many_ports_as_the_service() {
    takes(&service("a", "tcp://192.0.2.10:8000-8999", "10.0.0.1:64536", ""));
    refuses(
        &service("a", "tcp://192.0.2.10:8000-8999", "10.0.0.1:64537", ""),
        &["fewer ports than in 8000-8999"],
    );
    refuses(
        &service("a", "tcp://192.0.2.10:*", "10.0.0.1:80", ""),
        &["every port", "write 10.0.0.1: packets keep"],
    );
    refuses(
        &service("a", "tcp://192.0.2.10:80-90", "10.0.0.1:80", "mode = 'l2'"),
        &["(80-90)", "write 10.0.0.1"],
    );
    let twice = service("a", "tcp://192.0.2.10:8000-8999", "10.0.0.1:9000", "");
    refuses(
        &(twice.clone() + "[[service.backend]]\naddress = '10.0.0.1'\n"),
        &["backends 10.0.0.1 and 10.0.0.1:9000 have one address"],
    );
    takes(&(twice + "[[service.backend]]\naddress = '10.0.0.2'\n"));
}

#[test]
fn a_check_says_which_port_it_tries() {
    let range = |check: &str, backend: &str| {
        service("a", "tcp://192.0.2.10:8000-8999", backend, &format!("check = '{check}'"))
    };
    refuses(&range("tcp", "10.0.0.1"), &["service a listens on ports 8000-8999", "tcp,port=8000"]);
    refuses(&service("a", "tcp://192.0.2.10:*", "10.0.0.1", "check = 'http:/'"), &["ports *"]);
    takes(&range("tcp,port=22", "10.0.0.1"));
    takes(&range("none", "10.0.0.1"));
    takes(&range("tcp", "10.0.0.1:9000"));
}

#[test]
fn replies_belong_to_one_service() {
    let any = service("any", "tcp://192.0.2.10:*", "10.0.0.1", "");
    let and = |listen: &str, backend: &str| any.clone() + &service("z", listen, backend, "");
    // What is more exact never leaves these ports to the other one.
    takes(&and("tcp://192.0.2.10:443", "10.0.0.1:443"));
    takes(&and("tcp://192.0.2.10:8000-8999", "10.0.0.1"));
    takes(&and("tcp://192.0.2.11:443", "10.0.0.2:443"));
    takes(&and("udp://192.0.2.11:443", "10.0.0.1:443"));
    for (listen, backend, port) in [
        ("tcp://192.0.2.10:443", "10.0.0.1:8443", "8443"),
        ("tcp://192.0.2.11:443", "10.0.0.1:443", "443"),
        ("tcp://192.0.2.11:8000-8999", "10.0.0.1", "8000"),
        ("tcp://192.0.2.10:8000-8999", "10.0.0.1:8500", "8500"),
        ("tcp://192.0.2.11:*", "10.0.0.1", "1"),
    ] {
        let what = format!("services any and z both send tcp to port {port} of backend 10.0.0.1");
        refuses(&and(listen, backend), &[&what]);
    }
    let shifted = service("a", "tcp://192.0.2.10:8000-8999", "10.0.0.1:18000", "");
    takes(&(shifted.clone() + &service("b", "tcp://192.0.2.10:8500", "10.0.0.1:18500", "")));
    refuses(&(shifted + &service("b", "tcp://192.0.2.10:8500", "10.0.0.1:18501", "")), &["port 18501"]);
}

#[test]
fn what_every_port_means_for_backends_is_said() {
    let warnings = |mode: &str| {
        let text = service("a", "tcp://192.0.2.10:*", "10.0.0.1", &format!("mode = '{mode}'"));
        check(&text, "lb.toml").unwrap().warnings
    };
    assert!(warnings("nat")[0].to_string().contains("their own connections too"));
    assert_eq!(warnings("l2"), []);
}

#[test]
fn packets_do_not_come_back() {
    let any = service("any", "tcp://192.0.2.10:*", "10.0.0.1", "");
    refuses(
        &(any + &service("z", "tcp://192.0.2.11:80", "192.0.2.10:80", "")),
        &["where service any listens"],
    );
    let exact = service("one", "tcp://192.0.2.12:8500", "10.0.0.2:1", "");
    let to = |backend: &str| exact.clone() + &service("z", "tcp://192.0.2.11:8000-8999", backend, "");
    refuses(&to("192.0.2.12"), &["backend 192.0.2.12 is where service one listens"]);
    takes(&to("192.0.2.12:9000"));
}

#[test]
fn an_address_has_room_for_so_many_ranges() {
    let of = |count: usize, vip: &dyn Fn(usize) -> usize, backend: &str| {
        let one = |n: usize| {
            let listen = format!("tcp://192.0.2.{}:{}-{}", vip(n), n * 10, n * 10 + 9);
            service(&format!("s{n}"), &listen, backend, "")
        };
        (1..=count).map(one).collect::<String>()
    };
    takes(&of(16, &|_| 1, "10.0.0.1"));
    refuses(&of(17, &|_| 1, "10.0.0.1"), &["service s17: 192.0.2.1 has 16 ranges", "10.0.0.1 has 16 ranges"]);
    refuses(&of(17, &|n| n, "10.0.0.1"), &["service s17: 10.0.0.1 has 16 ranges of tcp ports already"]);
}
