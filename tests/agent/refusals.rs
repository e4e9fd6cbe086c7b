//! What an agent does not do, and that it says why.

use lb_tests::agent::{Balancer, Ran};
use lb_tests::require::root;
use lb_tests::topo::machine;

fn running() -> Balancer {
    let mut lb = Balancer::new(machine("lb"));
    lb.start();
    lb
}

#[test]
fn a_second_agent_on_the_same_socket_is_told_so() {
    if !root() {
        return;
    }
    let lb = running();
    lb.ok(&["service", "add", "web", "tcp://192.0.2.10:80"]);
    let second = Ran::of(&mut lb.agent_command());
    assert_eq!(second.code, 1, "{}", second.stderr);
    let socket = lb.socket().display().to_string();
    assert!(
        second.stderr.contains("already answers") && second.stderr.contains(&socket),
        "{}",
        second.stderr
    );
    assert_eq!(lb.status().services.len(), 1, "the first was disturbed");
}

#[test]
fn a_second_agent_on_the_same_pins_is_told_so() {
    if !root() {
        return;
    }
    let lb = running();
    lb.ok(&["service", "add", "web", "tcp://192.0.2.10:80"]);
    let other = lb.beside();
    let mut command = lb.ns.command(lb_tests::agent::binary());
    command.args(["agent", "--pins"]).arg(lb.pins());
    command.arg("--state").arg(other.state()).arg("--socket").arg(other.socket());
    let second = Ran::of(&mut command);
    assert_eq!(second.code, 1, "{}", second.stderr);
    let pins = lb.pins().display().to_string();
    assert!(second.stderr.contains("another lb uses") && second.stderr.contains(&pins), "{}", second.stderr);
    assert!(!other.socket().exists(), "its socket stays behind");
    assert_eq!(lb.status().services.len(), 1, "the first was disturbed");
}

#[test]
fn without_rights_the_missing_capability_is_named() {
    if !root() {
        return;
    }
    let lb = Balancer::new(machine("lb"));
    let mut command = lb.ns.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(lb_tests::agent::binary());
    lb.agent_arguments(&mut command);
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("CAP_"), "{}", ran.stderr);
    assert!(!lb.socket().exists(), "its socket stays behind");
}

#[test]
fn tables_that_are_full_refuse_the_whole_change() {
    if !root() {
        return;
    }
    let lb = running();
    lb.ok(&["service", "add", "first", "tcp://192.0.2.1:80", "--backend", "10.0.0.1:80"]);
    let before = lb.ok(&["export"]);
    // Rings of the largest size: forty do not fit into the table's four million slots.
    let service = |number| {
        format!(
            "[[service]]\nname = \"s{number}\"\nlisten = \"tcp://192.0.2.{number}:80\"\nring-size = 131071\n\
             [[service.backend]]\naddress = \"10.0.0.{number}:80\"\n"
        )
    };
    let file = lb.directory().join("large.toml");
    std::fs::write(&file, (1..=40).map(service).collect::<String>()).unwrap();
    let said = lb.refused(1, &["apply", "-f", file.to_str().unwrap()]);
    assert!(said.contains("full"), "{said}");
    assert_eq!(lb.ok(&["export"]), before, "something of it is in force");
    lb.ok(&["service", "add", "second", "tcp://192.0.2.2:80"]);
}

#[test]
fn exit_codes_tell_kinds_of_failure_apart() {
    if !root() {
        return;
    }
    let lb = running();
    let add = ["service", "add", "web", "tcp://192.0.2.10:80"];
    lb.ok(&add);
    assert!(lb.ok(&add).contains("already"), "the same again is no failure");
    lb.refused(4, &[&add[..], &["--mode", "l2"]].concat());
    lb.refused(4, &["service", "add", "other", "tcp://192.0.2.10:80"]);
    lb.refused(3, &["service", "rm", "nothing"]);
    lb.refused(3, &["service", "show", "nothing"]);
    lb.refused(3, &["stats", "nothing"]);
    lb.refused(3, &["backend", "drain", "web", "10.0.0.1:80"]);
    lb.refused(2, &["service", "add", "web"]);
    lb.refused(2, &["frobnicate"]);
    lb.refused(2, &["backend", "set", "web", "10.0.0.1:80", "--weight", "many"]);
    lb.refused(3, &["apply", "-f", "/nonexistent"]);
    let broken = lb.directory().join("broken.toml");
    std::fs::write(&broken, "[[service]]\nname = \"a\"\nlisten = \"tcp://192.0.2.1:80\"\nshedule = \"x\"\n")
        .unwrap();
    let said = lb.refused(1, &["check", broken.to_str().unwrap()]);
    assert!(said.contains("broken.toml:4") && said.contains("shedule"), "{said}");
    let nobody = lb.beside();
    let said = nobody.refused(1, &["status"]);
    assert!(said.contains("lb agent"), "{said}");
}
