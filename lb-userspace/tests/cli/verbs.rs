//! What each verb does and prints when all is well.

use crate::world::{World, run};
use serde_json::json;
use std::process::Stdio;

/// The lines of a table, without the spaces that align it.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn a_service_comes_changes_and_goes() {
    let world = World::with_web();
    let shown = world.json("service show web");
    assert_eq!(shown["listen"], "tcp://192.0.2.10:443");
    assert_eq!(shown["backends"][1]["weight"], 50);

    let set = world.lb("service set web --on-down keep --set idle-timeout=20m --check http:/healthz,rise=5");
    assert_eq!(set.code, 0, "{set:?}");
    let shown = world.json("service show web");
    assert_eq!(shown["on_down"], "keep");
    assert_eq!(shown["idle_timeout_s"], 1200);
    assert_eq!(shown["check"], "http:/healthz,rise=5");

    assert_eq!(world.lb("service rm web").code, 0);
    assert_eq!(world.json("service list"), json!([]));
    assert!(world.lb("service list").out.contains("lb service add"));
}

#[test]
fn options_of_a_new_service_arrive() {
    let world = World::new();
    let add = "service add dns udp://[2001:db8::10]:53 --mode l2 --announce none --tracking never \
               --ring-size 1021 --scheduler maglev --idle-timeout 10s --backend 2001:db8::11";
    let added = world.lb(add);
    assert_eq!(added.code, 0, "{added:?}");
    let shown = world.json("service show dns");
    assert_eq!(
        json!([
            shown["mode"],
            shown["announce"],
            shown["tracking"],
            shown["ring_size"],
            shown["idle_timeout_s"]
        ]),
        json!(["l2", "none", "never", 1021, 10])
    );
    assert_eq!(shown["backends"][0]["address"], "[2001:db8::11]:53");
}

#[test]
fn a_second_time_changes_nothing_and_says_so() {
    let world = World::with_web();
    for verb in [
        "service add web tcp://192.0.2.10:443 --backend 10.0.0.11:8443 --backend 10.0.0.12:8443,weight=50",
        "service set web --on-down rehash",
        "backend add web 10.0.0.11:8443",
        "backend set web 10.0.0.12:8443 --weight 50",
        "backend undrain web 10.0.0.11:8443",
        "detach --all",
    ] {
        let ran = world.lb(verb);
        assert_eq!(ran.code, 0, "{verb}: {ran:?}");
        assert!(ran.out.contains("already so"), "{verb}: {ran:?}");
    }
}

#[test]
fn backends_drain_and_go() {
    let world = World::with_web();
    assert_eq!(world.lb("backend drain web 10.0.0.11:8443 --for 90s").code, 0);
    let listed = world.json("backend list web");
    assert_eq!(listed[0]["admin"], "draining");
    assert!(listed[0]["drain_deadline"].is_u64());
    assert!(world.lb("backend list web").out.contains("draining (unchecked, 1m"));
    assert_eq!(world.lb("backend undrain web 10.0.0.11").code, 0);
    assert_eq!(world.json("backend list web")[0]["admin"], "active");

    assert_eq!(world.lb("backend rm web 10.0.0.11:8443 --drain 60s").code, 0);
    assert_eq!(world.json("backend list")["web"][0]["remove_when_drained"], true);
    let gone = world.lb("backend rm web 10.0.0.11:8443 --now");
    assert_eq!(gone.code, 0, "{gone:?}");
    assert_eq!(world.json("backend list web").as_array().unwrap().len(), 1);
    assert!(
        world.lb("backend rm web 10.0.0.12:8443").out.contains("warning: service web has no backend left")
    );
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let world = World::with_web();
    let ran = world.lb("backend rm web 10.0.0.11:8443 --dry-run");
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("10.0% of new flows would go elsewhere (10 of 100 slots)"), "{ran:?}");
    assert!(ran.out.contains("nothing was done"), "{ran:?}");
    assert_eq!(world.json("backend list web").as_array().unwrap().len(), 2);
}

#[test]
fn interfaces_are_attached_loudly() {
    let world = World::new();
    let ran = world.lb("attach eth0 eth1 --mode generic");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("warning: eth0 is generic: the driver has no native mode"), "{ran:?}");
    assert_eq!(world.json("attach eth0 eth1 --mode generic")[1]["changed"], false);
    assert_eq!(world.json("status")["interfaces"][0]["wanted"], "generic");
    assert_eq!(world.lb("detach eth0").code, 0);
    assert_eq!(world.lb("detach --all").code, 0);
    assert!(world.lb("status").out.contains("lb attach IFACE"));
}

#[test]
fn files_are_checked_compared_applied_and_come_back() {
    let world = World::with_web();
    let text = world.lb("export").out;
    let file = world.file("lb.toml", &text.replace("weight = 50", "weight = 60"));
    let file = file.display();
    assert!(world.lb(&format!("check {file}")).out.contains("is right; services: 1, backends: 2"));
    let diff = world.lb(&format!("diff -f {file}"));
    assert!(diff.code == 0 && diff.out.contains("nothing was done"), "{diff:?}");
    assert_eq!(world.lb("export").out, text);
    assert_eq!(world.lb(&format!("apply -f {file}")).code, 0);
    assert_eq!(world.json("backend list web")[1]["weight"], 60);
    assert!(world.lb(&format!("apply -f {file}")).out.contains("already so"));
    assert_eq!(world.json("export")["service"][0]["name"], "web");
}

#[test]
fn a_file_comes_from_standard_input() {
    let world = World::with_web();
    let file = world.file("empty.toml", "");
    let ran = run(world.command("apply -f -").stdin(std::fs::File::open(file).unwrap()));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(world.json("service list"), json!([]));
}

#[test]
fn tables_are_aligned_and_in_people_s_units() {
    let world = World::with_web();
    let ran = world.lb("backend list web");
    let table = rows(&ran.out);
    assert_eq!(
        table[0],
        [
            "BACKEND", "WEIGHT", "STATE", "EXPECTED", "SHARE", "FLOWS", "PACKETS", "BYTES", "NEXT", "HOP",
            "REASON"
        ]
    );
    assert_eq!(table[1][..4], ["10.0.0.11:8443", "100", "unchecked", "66.7%"]);
    let shown = world.lb("service show web").out;
    assert!(shown.contains(" EXPECTED ") && shown.contains(" 66.7%  ███████░░░  66.7% "), "{shown}");
    assert!(ran.out.contains("███████░░░  66.7%") && ran.out.contains("3.0 MiB"), "{}", ran.out);
    assert!(ran.out.lines().all(|line| line == line.trim_end()), "{ran:?}");
    // Numbers end in the same column.
    let ends: Vec<_> = ran.out.lines().skip(1).map(|line| line.find(" unchecked").unwrap()).collect();
    assert_eq!(ends[0], ends[1]);
    assert!(world.lb("-o wide backend list web").out.contains("3145728"));
}

#[test]
fn status_is_one_screen() {
    let world = World::with_web();
    let out = world.lb("status").out;
    for part in
        ["agent 0.0.0, pid 7, up 1h 1m", "tcp://192.0.2.10:443", "10.0.0.12:8443", "nothing needs attention"]
    {
        assert!(out.contains(part), "{part} not in {out}");
    }
}

#[test]
fn statistics_and_reasons() {
    let world = World::with_web();
    let out = world.lb("stats web").out;
    assert_eq!(rows(&out)[1][..4], ["web", "all", "0", "1.0"]);
    let out = world.lb("stats --reasons").out;
    assert!(out.contains("Sent to a backend.") && out.contains("not-ip"), "{out}");
    assert_eq!(world.json("stats")["reasons"]["not-ip"], 3);
}

#[test]
fn watching_shows_rates_until_nobody_reads() {
    use std::io::{BufRead, BufReader};
    let world = World::with_web();
    let mut child = world.command("stats --watch 100ms").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut totals = lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("web"));
    let first = totals.next().unwrap();
    let second = totals.next().unwrap();
    // The first has no rate yet.
    assert!(second.split_whitespace().count() > first.split_whitespace().count(), "{first}\n{second}");
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_packet_is_explained() {
    let world = World::with_web();
    let out = world.lb("explain tcp 198.51.100.7:40000 192.0.2.10:443").out;
    assert!(out.starts_with("tx (forwarded)"), "{out}");
    assert!(
        out.contains("10.0.0.11:8443") && out.contains("tcp 198.51.100.7:40000 → 192.0.2.10:443 [syn]"),
        "{out}"
    );
    let out = world.lb("explain udp [2001:db8::7]:4 [2001:db8::10]:53 --iface eth7").out;
    assert!(out.starts_with("pass (not-a-service)") && out.contains("eth7"), "{out}");
}

#[test]
fn a_capture_is_explained_packet_by_packet() {
    use lb_userspace::explain::packet::{Flags, Tuple, frame};
    let world = World::with_web();
    let path = world.file("capture.pcap", "");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
    for destination in ["192.0.2.10:443", "192.0.2.99:443"] {
        let tuple = Tuple {
            protocol: lb_userspace::model::Protocol::Tcp,
            source: "198.51.100.7:40000".parse().unwrap(),
            destination: destination.parse().unwrap(),
            flags: Flags::SYN,
        };
        let bytes = frame(&tuple).unwrap();
        let packet = pcap_file::pcap::PcapPacket::new(std::time::Duration::ZERO, bytes.len() as u32, &bytes);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let out = world.lb(&format!("explain --pcap {}", path.display())).out;
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("1 tx (forwarded), web to 10.0.0.11:8443: tcp"), "{out}");
    assert!(lines[1].starts_with("2 pass (not-a-service): tcp"), "{out}");
    let explained = world.json(&format!("explain --pcap {}", path.display()));
    assert_eq!(explained[1]["number"], 2);
}

#[test]
fn the_doctor_looks_at_an_interface() {
    let world = World::new();
    let findings = world.lb("-o json doctor lo");
    // Loopback is no place to balance, so there is a problem whatever else this machine is like.
    assert_eq!(findings.code, 1, "{findings:?}");
    let findings: serde_json::Value = serde_json::from_str(&findings.out).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|f| f["subject"] == "lo" && f["severity"] == "problem" && f["remedy"].is_string())
    );
    assert!(findings.iter().any(|f| f["subject"] == "kernel" && f["severity"] == "ok"));
    assert!(findings.iter().any(|f| f["subject"] == "agent" && f["finding"] == "version 0.0.0, pid 7"));
}

#[test]
fn colours_only_where_they_are_seen() {
    let world = World::with_web();
    assert!(!world.lb("status").out.contains('\x1b'), "a pipe");
    let forced = run(world.command("status").env("CLICOLOR_FORCE", "1"));
    assert!(forced.out.contains("\x1b["), "asked for: {forced:?}");
    let refused = run(world.command("--no-color status").env("CLICOLOR_FORCE", "1"));
    assert!(!refused.out.contains('\x1b'), "--no-color wins");
    let refused = run(world.command("status").env("NO_COLOR", "1"));
    assert!(!refused.out.contains('\x1b'), "NO_COLOR");
}

#[test]
fn scripts_and_pages_are_generated() {
    let world = World::new();
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef lb"), ("fish", "complete -c lb")] {
        let ran = world.lb(&format!("completions {shell}"));
        assert!(ran.code == 0 && ran.out.contains(part), "{shell}");
        assert!(ran.out.contains("undrain"), "{shell}");
    }
    assert!(world.lb("man").out.contains(".TH lb 1"));
    let directory = world.socket().with_file_name("man");
    assert_eq!(world.lb(&format!("man --dir {}", directory.display())).code, 0);
    assert!(directory.join("lb-backend-drain.1").exists());
}

#[test]
fn every_verb_has_help() {
    let world = World::new();
    for verb in [
        "",
        "demo",
        "agent",
        "attach",
        "detach",
        "service",
        "service add",
        "service set",
        "service rm",
        "service show",
        "service list",
        "backend",
        "backend add",
        "backend set",
        "backend list",
        "backend rm",
        "backend drain",
        "backend undrain",
        "apply",
        "diff",
        "export",
        "check",
        "status",
        "stats",
        "explain",
        "doctor",
        "pass",
        "completions",
        "man",
    ] {
        let ran = world.lb(&format!("{verb} --help"));
        assert_eq!(ran.code, 0, "{verb}");
        assert!(ran.out.contains("Usage: lb"), "{verb}: {}", ran.out);
    }
}
