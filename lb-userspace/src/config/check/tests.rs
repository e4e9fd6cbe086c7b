//! Every kind of mistake, with its line and what to write instead.

use super::*;
use crate::model::{CheckKind, Mode};
use proptest::prelude::*;
use std::fmt::Write as _;

const HEAD: &str = "[[service]]\nname = \"web\"\nlisten = \"tcp://192.0.2.10:443\"\n";
const BACKEND: &str = "[[service.backend]]\naddress = \"10.0.0.11:8443\"\n";

fn problems(text: &str) -> Vec<String> {
    match check(text, "lb.toml") {
        Ok(checked) => panic!("accepted: {checked:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The text has exactly one problem, on that line, and its report holds the words.
fn refuses(text: &str, line: usize, words: &[&str]) {
    let all = problems(text);
    assert_eq!(all.len(), 1, "{all:#?}\n{text}");
    assert!(all[0].starts_with(&format!("lb.toml:{line}:")), "{}\n{text}", all[0]);
    for word in words {
        assert!(all[0].contains(word), "{:?} has no {word:?}", all[0]);
    }
}

#[test]
fn the_manuals_example() {
    let text = r#"
[agent]
interfaces = ["eth0"]            # attached at start
metrics = "127.0.0.1:9990"       # Prometheus, and the web page

[defaults]                       # inherited by every service
mode = "nat"
scheduler = "maglev"

[[service]]
name = "web"
listen = "tcp://192.0.2.10:443"
on-down = "rehash"               # or "keep"
announce = "interface"           # or "none": who answers ARP / ND for the address
idle-timeout = "15m"

[service.check]
kind = "http"                    # tcp, http, https, udp, dns, icmp, grpc, exec
path = "/healthz"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3

[[service.backend]]
address = "10.0.0.11:8443"
weight = 100
"#;
    let checked = check(text, "lb.toml").unwrap();
    assert_eq!(checked.warnings, []);
    assert_eq!(checked.metrics, Some("127.0.0.1:9990".parse().unwrap()));
    assert!(!checked.keeps_interfaces);
    let service = &checked.desired.services["web"];
    assert_eq!(service.check.as_ref().unwrap().kind, CheckKind::http("/healthz"));
    assert_eq!(service.backends.len(), 1);
}

#[test]
fn an_empty_file_asks_for_nothing() {
    let checked = check("", "lb.toml").unwrap();
    assert_eq!(checked.desired, Desired::default());
    assert!(checked.keeps_interfaces);
}

#[test]
fn a_service_inherits_and_overrides() {
    let text = format!(
        "[defaults]\nmode = \"l2\"\ncheck = \"tcp\"\nring-size = 251\n{HEAD}{}\
         [[service]]\nname = \"b\"\nlisten = \"udp://192.0.2.11:53\"\nmode = \"nat\"\ncheck = \"none\"\n",
        "[[service.backend]]\naddress = \"10.0.0.11\"\n"
    );
    let desired = check(&text, "lb.toml").unwrap().desired;
    let (web, b) = (&desired.services["web"], &desired.services["b"]);
    assert_eq!((web.mode, b.mode), (Mode::L2, Mode::Nat));
    assert_eq!((web.check.is_some(), b.check.is_some()), (true, false));
    assert_eq!((web.ring_size, b.ring_size), (251, 251));
    assert_eq!((web.idle_timeout.as_secs(), b.idle_timeout.as_secs()), (900, 30));
    assert!(web.backends.contains_key(&"10.0.0.11:443".parse().unwrap()));
}

#[test]
fn what_is_unknown_or_of_the_wrong_type() {
    refuses(
        &format!("{HEAD}idel-timeout = \"15m\"\n"),
        4,
        &["idel-timeout", "did you mean \"idle-timeout\""],
    );
    refuses("[agents]\n", 1, &["did you mean \"agent\""]);
    refuses("[agent]\nfrobnicate = 1\n", 2, &["frobnicate", "interfaces, encap-source, metrics"]);
    refuses(&format!("{HEAD}{BACKEND}wieght = 3\n"), 6, &["did you mean \"weight\""]);
    refuses(
        &format!("{HEAD}{BACKEND}weight = 1.5\n"),
        6,
        &["service[0].backend[0].weight", "float", "weight = 100"],
    );
    refuses(&format!("{HEAD}{BACKEND}weight = \"3\"\n"), 6, &["string", "weight = 100"]);
    refuses(&format!("{HEAD}{BACKEND}weight = 99999999999999999999\n"), 6, &["weight"]);
    refuses(&format!("{HEAD}idle-timeout = 15\n"), 4, &["in quotes"]);
    refuses("[service]\nname = \"web\"\n", 1, &["[[service]]", "two brackets"]);
    refuses("[agent]\ninterfaces = \"eth0\"\n", 2, &["interfaces = [\"eth0\""]);
    refuses("service = [1]\n", 1, &["[[service]]"]);
    refuses("[agent]\ninterfaces = [{ nam = \"eth0\", name = \"eth0\" }]\n", 2, &["did you mean \"name\""]);
}

#[test]
fn what_is_not_toml() {
    refuses("[agent]\nmetrics = \n", 2, &["TOML"]);
    refuses(&format!("{HEAD}name = \"web\"\n"), 4, &["duplicate"]);
}

#[test]
fn listeners_and_names() {
    refuses("[[service]]\nlisten = \"tcp://192.0.2.10:443\"\n", 1, &["no name"]);
    refuses("[[service]]\nname = \"web\"\n", 1, &["service web", "no listener"]);
    for name in ["-web", "we b", "a/b", "ü", &"x".repeat(64)] {
        refuses(
            &format!("[[service]]\nname = \"{name}\"\nlisten = \"tcp://192.0.2.10:443\"\n"),
            2,
            &["is not a name"],
        );
    }
    refuses(
        "[[service]]\nname = \"a\"\nlisten = \"tcp://192.0.2.10:65536\"\n",
        3,
        &["not a port", "1 to 65535"],
    );
    refuses(&format!("{HEAD}{HEAD}"), 5, &["web is written twice"]);
    let overlap = HEAD.replace("web", "two");
    refuses(&format!("{HEAD}{overlap}"), 6, &["services web and two both listen"]);
    let udp = overlap.replace("tcp://", "udp://");
    assert!(check(&format!("{HEAD}{udp}"), "lb.toml").is_ok());
}

#[test]
fn options() {
    for (option, words) in [
        ("mode = \"snat\"", ["snat", "not available in this version"]),
        ("mode = \"tunnel\"", ["unknown", "nat, l2, ipip, gue"]),
        ("scheduler = \"rr\"", ["\"rr\" is not available", "maglev"]),
        ("on-down = \"drop\"", ["on-down", "rehash, keep"]),
        ("announce = \"bgp\"", ["announce", "interface, none"]),
        ("tracking = \"alway\"", ["did you mean \"always\"", "adaptive"]),
        ("idle-timeout = \"15 parsecs\"", ["not a duration", "15m"]),
        ("idle-timeout = \"0s\"", ["out of range", "from 1s"]),
        ("ring-size = 1000", ["not one of the primes", "16381"]),
        ("ring-size = -1", ["not one of the primes", "65537"]),
        ("check = \"https:/\"", ["https", "not available"]),
        ("check = \"http:/,x=1\"", ["\"x\" is unknown", "interval"]),
    ] {
        refuses(&format!("{HEAD}{option}\n"), 4, &words);
        if !option.starts_with("check") {
            refuses(&format!("[defaults]\n{option}\n{HEAD}{HEAD2}"), 2, &words);
        }
    }
}

const HEAD2: &str = "[[service]]\nname = \"two\"\nlisten = \"tcp://192.0.2.11:443\"\n";

#[test]
fn checks() {
    for (option, words) in [
        ("kind = \"icmp\"", vec!["not available in this version", "tcp or http"]),
        ("kind = \"ping\"", vec!["unknown"]),
        ("path = \"/\"", vec!["has no kind"]),
        ("kind = \"tcp\"\npath = \"/\"", vec!["has no path"]),
        ("kind = \"http\"\npath = \"healthz\"", vec!["starts with /"]),
        ("kind = \"http\"\npath = \"/a HTTP/1.1\\r\\nX: y\"", vec!["control characters"]),
        ("kind = \"http\"\nhost = \"a\\r\\nX: y\"", vec!["is not a host"]),
        ("kind = \"http\"\nhost = \"\"", vec!["is not a host"]),
        ("kind = \"http\"\nexpect = \"200-99\"", vec!["status codes"]),
        ("kind = \"http\"\nexpect = \"abc\"", vec!["status codes"]),
        ("kind = \"http\"\nmethod = \"POST\"", vec!["GET, HEAD"]),
        ("kind = \"tcp\"\ninterval = \"0s\"", vec!["out of range", "from 10ms"]),
        ("kind = \"tcp\"\nrise = 0", vec!["rise 0", "from 1"]),
        ("kind = \"tcp\"\nfall = -3", vec!["fall -3", "from 1"]),
        ("kind = \"tcp\"\nport = 0", vec!["port 0", "from 1 to 65535"]),
        ("kind = \"tcp\"\nport = 65536", vec!["port 65536"]),
    ] {
        let line = 4 + option.lines().count();
        let line = if option.contains("has no kind") || option == "path = \"/\"" { 4 } else { line };
        refuses(&format!("{HEAD}[service.check]\n{option}\n"), line, &words);
    }
}

#[test]
fn backends() {
    for (address, words) in [
        ("10.0.0.11:0", "not a port"),
        ("backend.example:80", "not an IP address"),
        ("[2001:db8::1]:80", "is IPv6, the service is IPv4"),
        ("192.0.2.10:8080", "the service's own address"),
        ("[::ffff:10.0.0.1]:80", "write 10.0.0.1"),
        ("224.0.0.1:80", "multicast"),
    ] {
        refuses(&format!("{HEAD}[[service.backend]]\naddress = \"{address}\"\n"), 5, &[words]);
    }
    refuses(&format!("{HEAD}[[service.backend]]\nweight = 1\n"), 4, &["no address"]);
    refuses(&format!("{HEAD}{BACKEND}weight = 65536\n"), 6, &["weight 65536", "0 to 65535"]);
    refuses(&format!("{HEAD}{BACKEND}weight = -1\n"), 6, &["weight -1"]);
    refuses(&format!("{HEAD}{BACKEND}{BACKEND}"), 7, &["10.0.0.11:8443 is written twice"]);
    refuses(&format!("{HEAD}mode = \"l2\"\n{BACKEND}"), 6, &["another port", "write 10.0.0.11"]);
    refuses(&format!("{HEAD}{BACKEND}draining = {{ until = \"soon\" }}\n"), 6, &["not a time"]);
}

#[test]
fn one_backend_of_two_nat_services() {
    let text = format!("{HEAD}{BACKEND}{HEAD2}{BACKEND}");
    refuses(&text, 10, &["services web and two", "10.0.0.11:8443", "in this version"]);
    // Another protocol has its own way back; direct return has none.
    assert!(check(&text.replace("tcp://192.0.2.11", "udp://192.0.2.11"), "lb.toml").is_ok());
    let direct = text.replace("tcp://192.0.2.11:443\"", "tcp://192.0.2.11:8443\"\nmode = \"l2\"");
    assert!(check(&direct, "lb.toml").is_ok());
}

#[test]
fn a_service_behind_a_service() {
    // Whichever comes first in the file.
    let second = HEAD2.replace("192.0.2.11:443", "10.0.0.11:8443");
    refuses(&format!("{HEAD}{BACKEND}{second}"), 5, &["where service two listens"]);
    refuses(&format!("{second}{HEAD}{BACKEND}"), 8, &["where service two listens"]);
}

#[test]
fn interfaces_and_metrics() {
    let text = "[agent]\ninterfaces = [\"eth0\", { name = \"eth1\", mode = \"generic\" }]\n";
    let interfaces = check(text, "lb.toml").unwrap().desired.interfaces;
    assert_eq!(interfaces["eth0"], AttachMode::Auto);
    assert_eq!(interfaces["eth1"], AttachMode::Generic);
    refuses("[agent]\ninterfaces = [\"eth0\", \"eth0\"]\n", 2, &["eth0 is written twice"]);
    refuses("[agent]\ninterfaces = [\"a/b\"]\n", 2, &["not the name of an interface"]);
    refuses("[agent]\ninterfaces = [\"sixteen-letters-\"]\n", 2, &["1 to 15"]);
    refuses("[agent]\ninterfaces = [{ name = \"a\", mode = \"skb\" }]\n", 2, &["auto, native, generic"]);
    refuses("[agent]\nmetrics = \"localhost\"\n", 2, &["127.0.0.1:9990"]);
}

#[test]
fn all_at_once_in_order() {
    let text = format!(
        "[agnt]\n{HEAD}mode = 3\non-down = \"x\"\n{BACKEND}weight = 70000\n[[service.backend]]\naddress = \"x\"\n"
    );
    let all = problems(&text);
    let lines: Vec<_> =
        all.iter().map(|problem| problem.split(':').nth(1).unwrap().parse::<u32>().unwrap()).collect();
    assert_eq!(lines, [1, 5, 6, 9, 11], "{all:#?}");
}

#[test]
fn columns_count_characters() {
    let problem = &check("[agent]\nmetrics = \"ü\" # ü\nfoo = 1 # ü\n", "lb.toml").unwrap_err()[1];
    assert_eq!((problem.line, problem.column), (3, 1));
    let problem =
        &check("agent = { metrics = \"127.0.0.1:1\", \"ü\" = 1, foo = 1 }\n", "lb.toml").unwrap_err()[1];
    assert_eq!((problem.line, problem.column), (1, 45));
}

#[test]
fn warnings() {
    let text = format!("{HEAD}[service.check]\nkind = \"tcp\"\ninterval = \"1s\"\ntimeout = \"1s\"\n");
    let warnings = check(&text, "lb.toml").unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].line, 7);
    let mut text = format!("{HEAD}ring-size = 251\n");
    for host in 1..=3 {
        write!(text, "[[service.backend]]\naddress = \"10.0.0.{host}\"\n").unwrap();
    }
    let warnings = check(&text, "lb.toml").unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!((warnings[0].line, warnings[0].remedy.as_str()), (4, "write ring-size = 509"));
}

#[test]
fn too_many_backends() {
    let mut text = HEAD.replace("tcp", "udp");
    for number in 0..=32_767 {
        write!(text, "[[service.backend]]\naddress = \"10.1.{}.{}\"\n", number / 256, number % 256).unwrap();
    }
    refuses(&text, 4, &["32768 backends are too many", "at most 32767"]);
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC*") {
        let _ = check(&text, "lb.toml");
    }

    /// A correct text with a piece replaced is accepted or refused with places inside the text.
    #[test]
    fn damage_is_reported_inside(start in 0_usize..200, len in 0_usize..20, by in "[a-z0-9\"=\\[\\]{}\n.:-]{0,6}") {
        let mut text = format!("[agent]\ninterfaces = [\"eth0\"]\n{HEAD}check = \"http:/\"\n{BACKEND}weight = 7\n");
        let start = start.min(text.len());
        let end = (start + len).min(text.len());
        text.replace_range(start..end, &by);
        if let Err(problems) = check(&text, "lb.toml") {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.line <= text.split('\n').count());
                prop_assert!(!problem.message.is_empty() && !problem.remedy.is_empty());
            }
        }
    }
}
