//! What the command line answers from the kernel: counters, explanations, and that asking changes nothing.

use lb_tests::flows;
use lb_tests::nginx::Nginx;
use lb_tests::require::root;
use lb_tests::routed::{FRONT, Routed};
use lb_tests::topo::Family;
use lb_userspace::api::types::{ExplainView, ServiceView, StatsView};

#[test]
fn explanations_say_what_happens_and_count_nothing() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let _servers: Vec<Nginx> = (0..2)
        .map(|number| {
            let at = Family::V4.socket(Routed::backend(Family::V4, number), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[at])
        })
        .collect();
    net.add_service("web", Family::V4, &[]);
    flows::count(&net.client, "192.0.2.10:80", 100);
    let listed: Vec<ServiceView> = net.lb.json(&["service", "list"]);
    assert_eq!(listed.len(), 1);
    let flows: u64 = listed[0].backends.iter().map(|backend| backend.counters.flows).sum();
    assert!(flows >= 100, "{flows}");

    let counted = |stats: &StatsView| stats.services[0].clone();
    let before = counted(&net.lb.stats());
    let mut seen = std::collections::BTreeSet::new();
    for port in 40_000..40_032 {
        let source = format!("10.0.1.2:{port}");
        let question = ["explain", "tcp", &source, "192.0.2.10:80", "--iface", FRONT];
        let answer: ExplainView = net.lb.json(&question);
        assert_eq!(
            (answer.verdict.as_str(), answer.reason.as_str()),
            ("redirect", "forwarded"),
            "{answer:#?}"
        );
        assert_eq!(answer.service.as_deref(), Some("web"));
        assert_ne!(answer.before, answer.after);
        let again: ExplainView = net.lb.json(&question);
        assert_eq!(again, answer, "asked twice");
        seen.insert(answer.backend.unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["10.0.3.2:80", "10.0.4.2:80"]);
    let other: ExplainView = net.lb.json(&["explain", "tcp", "10.0.1.2:40000", "192.0.2.77:80"]);
    assert_eq!((other.verdict.as_str(), other.reason.as_str()), ("pass", "not-a-service"));
    let after = counted(&net.lb.stats());
    assert_eq!(after, before, "asking counted");
    net.assert_clean(&[]);
}
