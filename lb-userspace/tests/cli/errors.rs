//! What is said when something is wrong, and with which exit code.

use crate::world::{World, run};
use std::process::{Command, Stdio};

/// Exit code, a part of what is said, a part of the remedy.
fn refused(world: &World, arguments: &str, code: i32, message: &str, remedy: &str) {
    let ran = world.lb(arguments);
    assert_eq!(ran.code, code, "{arguments}: {ran:?}");
    assert!(ran.err.contains(message), "{arguments}: {ran:?}");
    assert!(ran.err.contains(remedy), "{arguments}: {ran:?}");
    assert_eq!(ran.out, "", "{arguments}");
}

#[test]
fn wrong_usage_is_2() {
    let world = World::with_web();
    for (arguments, message, remedy) in [
        ("service add a 192.0.2.10:443", "has no protocol", "tcp://192.0.2.10:443"),
        ("service add a tcp://192.0.2.10:0", "is not a port", "1 to 65535"),
        ("service add a tcp://192.0.2.300:80", "is not an IP address", "write it like"),
        ("service add a tcp://192.0.2.1:80 --mode snat", "not available", "nat, l2"),
        ("service add a tcp://192.0.2.1:80 --backend 10.0.0.1:80,weight=x", "weight", ",weight=100"),
        ("service set web --set on-dwon=keep", "on-down", "One of"),
        ("backend add web 10.0.0.256", "not an IP address", "10.0.0.11:8443"),
        ("backend add web 10.0.0.1:0", "is not a port", "1 to 65535"),
        ("backend set web 10.0.0.11 --weight 70000", "70000", "65535"),
        ("backend drain web 10.0.0.11 --for soon", "30s", "5m"),
        ("explain tcp 198.51.100.7 192.0.2.10:443", "198.51.100.7", "--help"),
        ("explain tcp 198.51.100.7:1 192.0.2.10:443 --flags sin", "not a flag", "syn"),
        ("attach eth0 --mode fast", "attach mode", "native"),
        ("attach", "IFACE", "--help"),
        ("stats --watch 1ms", "100ms", "--help"),
        ("nonsense", "nonsense", "--help"),
    ] {
        refused(&world, arguments, 2, message, remedy);
    }
}

#[test]
fn what_is_not_there_is_3() {
    let world = World::with_web();
    for (arguments, message, remedy) in [
        ("service show wbe", "no service \"wbe\"", "lb service list"),
        ("service rm wbe", "no service \"wbe\"", "did you mean \"web\""),
        ("service set wbe --on-down keep", "no service", "did you mean"),
        ("backend add nope 10.0.0.1:80", "no service \"nope\"", "lb service list"),
        ("backend rm web 10.0.0.99:8443", "no backend 10.0.0.99:8443", "lb backend list web"),
        ("backend list nope", "no service", "lb service list"),
        ("stats nope", "no service", "lb service list"),
        ("detach eth9", "eth9 is not attached", "no interface"),
        ("check /nowhere/lb.toml", "no file /nowhere/lb.toml", "lb export"),
        ("doctor nosuch0", "no interface \"nosuch0\"", "lo"),
    ] {
        refused(&world, arguments, 3, message, remedy);
    }
}

#[test]
fn what_does_not_go_together_is_4() {
    let world = World::with_web();
    for (arguments, message, remedy) in [
        ("service add web tcp://192.0.2.11:443", "exists and is different", "lb service set web"),
        ("service add other tcp://192.0.2.10:443", "192.0.2.10:443", "web"),
        ("backend add web 10.0.0.11:8443 --weight 7", "exists and is different", "lb backend set web"),
        ("service set web --ring-size 251", "cannot change its ring-size", "16381"),
    ] {
        refused(&world, arguments, 4, message, remedy);
    }
}

#[test]
fn what_cannot_be_done_is_1() {
    let world = World::with_web();
    refused(&world, "attach broken0", 1, "the kernel said no", "see the agent's log");
    refused(&world, "service set web", 1, "nothing to set", "--on-down keep");
    refused(&world, "service set web --check tpc", 1, "tpc", "tcp");
    refused(&world, "explain tcp 198.51.100.7:1 [2001:db8::1]:2", 1, "no packet goes from", "two IPv6");
}

#[test]
fn what_was_done_before_a_failure_is_said() {
    let world = World::new();
    let ran = world.lb("attach eth0 broken0");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("interface eth0 attached"), "{ran:?}");
}

#[test]
fn every_problem_of_a_file_is_said_with_its_line() {
    let world = World::with_web();
    let text = "[[service]]\nname = \"a\"\nlisten = \"tcp://192.0.2.1\"\nmoed = \"nat\"\n";
    let file = world.file("bad.toml", text);
    let file = file.display();
    for verb in [format!("check {file}"), format!("apply -f {file}"), format!("diff -f {file}")] {
        let ran = world.lb(&verb);
        assert_eq!(ran.code, 1, "{verb}: {ran:?}");
        assert!(
            ran.err.contains(&format!("{file}:3:")) && ran.err.contains(&format!("{file}:4:")),
            "{ran:?}"
        );
        assert!(ran.err.contains("did you mean \"mode\""), "{ran:?}");
    }
    assert_eq!(world.json("service list").as_array().unwrap().len(), 1);
}

#[test]
fn no_agent_is_said_with_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lb.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    let ran = run(command.env("LB_PINS", directory.path()).arg("--socket").arg(&socket).arg("status"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let expected = format!("no agent answers on {}: start one with `lb agent`", socket.display());
    assert!(ran.err.contains(&expected), "{ran:?}");
    // The same if an agent died and left its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ran = run(command.env("LB_LOG", "off"));
    assert!(ran.err.contains(&expected), "{ran:?}");
}

#[test]
fn nobody_reading_is_no_failure() {
    let world = World::with_web();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = world.command("status").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((ran.status.code(), ran.stderr.as_slice()), (Some(0), &b""[..]));
}
