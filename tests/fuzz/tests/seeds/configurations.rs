//! Configurations: each key and each of its words once, and each way to be wrong.

use lb_fuzz::RECIPE;

use crate::Seeds;

const EVERYTHING: &str = r#"# What can be said.
[agent]
interfaces = ["eth0", { name = "eth1", mode = "generic" }, { name = "eth2", mode = "native" }]
metrics = "127.0.0.1:9990"

[defaults]
mode = "nat"
scheduler = "maglev"
on-down = "rehash"
announce = "interface"
idle-timeout = "15m"
tracking = "adaptive"
ring-size = 65537

[defaults.check]
kind = "tcp"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3

[[service]]
name = "web"
listen = "tcp://192.0.2.10:443"
on-down = "keep"
announce = "none"
idle-timeout = "20m"
tracking = "always"

[service.check]
kind = "http"
path = "/healthz"
method = "HEAD"
host = "www.example.org"
expect = "200-399"
port = 8081

[[service.backend]]
address = "10.0.0.11:8443"
weight = 50

[[service.backend]]
address = "10.0.0.12"
draining = { until = "2030-01-31T12:00:00Z", remove = true }

[[service]]
name = "dns"
listen = "udp://[2001:db8::10]:53"
mode = "l2"
tracking = "never"
check = "tcp:port=53,interval=5s"

[[service.backend]]
address = "fd00::11"
draining = {}
"#;

const SERVICE: &str = "[[service]]\nname = \"web\"\nlisten = \"tcp://192.0.2.10:443\"\n";
const BACKEND: &str = "[[service.backend]]\naddress = \"10.0.0.11:8443\"\n";

/// By name: keys of a service.
const OF_A_SERVICE: [(&str, &str); 12] = [
    ("check-line", "check = \"http:/healthz,interval=2s,expect=200\"\n"),
    ("check-none", "check = \"none\"\n"),
    ("check-wrong-line", "check = \"http:healthz,interval\"\n"),
    ("check-without-kind", "check = { path = \"/\" }\n"),
    ("duration-long", "idle-timeout = \"99999999999999999999years\"\n"),
    ("duration-short", "idle-timeout = \"1ns\"\n"),
    ("mode-unknown", "mode = \"ant\"\n"),
    ("key-unknown", "idle_timeout = \"15m\"\n"),
    ("key-twice", "mode = \"nat\"\nmode = \"l2\"\n"),
    ("ring-size-of-no-prime", "ring-size = 65536\n"),
    ("scheduler-unknown", "scheduler = \"rr\"\n"),
    ("type-of-mode", "mode = [1, 2.5, true, 1979-05-27]\n"),
];

/// Whole texts.
const TEXTS: [(&str, &str); 13] = [
    ("everything", EVERYTHING),
    ("nothing", ""),
    ("no-interfaces", "agent.interfaces = []\n"),
    ("windows-lines", "[agent]\r\ninterfaces = [\"eth0\"]\r\n"),
    ("metrics-without-port", "[agent]\nmetrics = \"127.0.0.1:0\"\n"),
    ("interface-twice", "[agent]\ninterfaces = [\"eth0\", \"eth0\"]\n"),
    ("interface-too-long", "[agent]\ninterfaces = [\"a-name-of-seventeen\", \"\", \"a/b\"]\n"),
    ("not-closed", "[[service]\nname = \"web\n"),
    ("service-no-table", "service = 1\n"),
    ("service-empty", "[[service]]\n"),
    ("deep", "a = [[[[[[[[[[[[[[[[[[[[{ b = [[[[[[ 1 ]]]]]] }]]]]]]]]]]]]]]]]]]]]\n"),
    ("unicode", "[[service]]\nname = \"w\u{e9}b \u{1f980}\"\nlisten = \"tcp://192.0.2.10:443\"\n"),
    ("number-too-long", "[defaults]\nring-size = 99999999999999999999999\n"),
];

/// Addresses that a service may not listen at, or may.
const LISTENS: [(&str, &str); 5] = [
    ("listen-without-port", "tcp://192.0.2.10"),
    ("listen-multicast", "udp://224.0.0.1:53"),
    ("listen-mapped", "tcp://[::ffff:192.0.2.10]:80"),
    ("listen-unspecified", "tcp://0.0.0.0:80"),
    ("listen-another-scheme", "sctp://192.0.2.10:80"),
];

pub(crate) fn all() -> Seeds {
    let mut all = Seeds::new();
    let mut add = |name: &str, text: String| {
        assert!(all.insert(name.to_owned(), text.into_bytes()).is_none(), "{name}");
    };
    for (name, text) in TEXTS {
        add(name, text.to_owned());
    }
    for (name, keys) in OF_A_SERVICE {
        add(name, format!("{SERVICE}{keys}{BACKEND}"));
    }
    for (name, listen) in LISTENS {
        add(name, format!("[[service]]\nname = \"a\"\nlisten = \"{listen}\"\n{BACKEND}"));
    }
    add("a-service", format!("{SERVICE}{BACKEND}"));
    add("no-backend", SERVICE.to_owned());
    add("service-twice", format!("{SERVICE}{BACKEND}{SERVICE}{BACKEND}"));
    add("backend-twice", format!("{SERVICE}{BACKEND}{BACKEND}"));
    add("backend-of-another-family", format!("{SERVICE}[[service.backend]]\naddress = \"[fd00::1]:80\"\n"));
    add("backend-l2-port", format!("{SERVICE}mode = \"l2\"\n{BACKEND}"));
    add("backend-itself", format!("{SERVICE}[[service.backend]]\naddress = \"192.0.2.10:443\"\n"));
    add("backend-weight", format!("{SERVICE}{BACKEND}weight = 0\ndraining = {{ until = \"tomorrow\" }}\n"));
    all.insert("not-utf-8".to_owned(), vec![b'a', b' ', b'=', b' ', b'"', 0xff, 0xfe, b'"']);
    // Lines by their numbers, see `lb_fuzz::recipe`.
    all.insert("recipe-a-service".to_owned(), [&[RECIPE][..], &[0, 1, 10, 2, 11, 2, 12, 6, 50]].concat());
    all.insert(
        "recipe-two-services".to_owned(),
        [&[RECIPE][..], &[39, 0, 1, 90, 0, 1, 10, 29, 7, 2, 3, 7, 1, 4, 5, 11, 5, 6]].concat(),
    );
    all
}
