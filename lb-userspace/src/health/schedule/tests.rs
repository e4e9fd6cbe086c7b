//! With scripted results on tokio's stopped clock, and once with real sockets.

use super::*;
use crate::model::CheckKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::Receiver;

/// Answers as it is told and remembers when it was asked.
#[derive(Clone, Default)]
struct Script(Arc<Shared>);

#[derive(Default)]
struct Shared {
    failing: Mutex<BTreeMap<SocketAddr, Failure>>,
    tries: Mutex<Vec<(SocketAddr, Instant)>>,
    takes: Mutex<Duration>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Script {
    fn fail(&self, target: &Target, failure: Failure) {
        self.0.failing.lock().unwrap().insert(target.backend, failure);
    }

    fn recover(&self, target: &Target) {
        self.0.failing.lock().unwrap().remove(&target.backend);
    }

    fn tries(&self, target: &Target) -> Vec<Instant> {
        let tries = self.0.tries.lock().unwrap();
        tries.iter().filter(|(backend, _)| *backend == target.backend).map(|(_, at)| *at).collect()
    }
}

impl Probe for Script {
    async fn probe(&self, target: &Target, _: &Plan) -> Result<Success, Failure> {
        let shared = &self.0;
        shared.tries.lock().unwrap().push((target.backend, Instant::now()));
        shared.most.fetch_max(shared.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let takes = *shared.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        shared.running.fetch_sub(1, Ordering::SeqCst);
        shared.failing.lock().unwrap().get(&target.backend).cloned().map_or(Ok(Success::Connected), Err)
    }
}

fn target(host: u8) -> Target {
    Target { service: "web".into(), backend: SocketAddr::from(([10, 0, 0, host], 80)) }
}

fn every(interval: Duration) -> Plan {
    Plan { check: Arc::new(Check { interval, ..Check::new(CheckKind::Tcp) }), source: None }
}

const SECOND: Duration = Duration::from_secs(1);

fn runner() -> (Runner<Script>, Script, Receiver<Transition>) {
    let script = Script::default();
    let (sender, receiver) = mpsc::channel(64);
    (Runner::new(script.clone(), CONCURRENCY, sender), script, receiver)
}

fn set(targets: &[(Target, Plan)]) -> BTreeMap<Target, Plan> {
    targets.iter().cloned().collect()
}

fn unknown(_: &Target) -> Health {
    Health::Unknown
}

#[tokio::test(start_paused = true)]
async fn the_first_try_is_soon_and_the_others_at_the_interval() {
    let (mut runner, script, mut transitions) = runner();
    let start = Instant::now();
    let all: Vec<_> = (1..=100).map(target).collect();
    runner.update(all.iter().map(|target| (target.clone(), every(10 * SECOND))).collect(), unknown);
    for _ in &all {
        assert_eq!(transitions.recv().await.unwrap().health, Health::Up);
    }
    tokio::time::sleep(100 * SECOND).await;
    let firsts: Vec<_> = all.iter().map(|target| script.tries(target)[0] - start).collect();
    assert!(firsts.iter().all(|first| *first <= SECOND + Duration::from_millis(1)), "{firsts:?}");
    assert!(
        firsts.iter().max().unwrap().saturating_sub(*firsts.iter().min().unwrap()) > SECOND / 2,
        "not spread"
    );
    let gaps: Vec<_> = all
        .iter()
        .flat_map(|target| script.tries(target).windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>())
        .collect();
    // tokio's clock ticks in milliseconds.
    let tick = Duration::from_millis(2);
    assert!(gaps.iter().all(|gap| *gap >= 9 * SECOND - tick && *gap <= 11 * SECOND + tick), "{gaps:?}");
    assert!(
        gaps.iter().any(|gap| *gap < 10 * SECOND) && gaps.iter().any(|gap| *gap > 10 * SECOND),
        "no jitter"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_changes_and_the_others_are_not_disturbed() {
    let (mut runner, script, mut transitions) = runner();
    let of = |service: &str, n: u8| Target { service: service.into(), ..target(n) };
    let all = [of("a", 1), of("a", 2), of("b", 3)];
    runner.update(all.iter().map(|target| (target.clone(), every(SECOND))).collect(), unknown);
    for _ in &all {
        assert_eq!(transitions.recv().await.unwrap().health, Health::Up);
    }
    let since = runner.seen(&all[2]).unwrap().since;
    runner.update_service("a", set(&[(of("a", 2), every(SECOND)), (of("a", 4), every(SECOND))]), unknown);
    assert_eq!(transitions.recv().await.unwrap().target, of("a", 4));
    assert_eq!(runner.seen(&of("a", 1)), None);
    runner.update_service("a", BTreeMap::new(), unknown);
    runner.update_service("c", BTreeMap::new(), unknown);
    assert_eq!(runner.snapshot().into_keys().collect::<Vec<_>>(), [of("b", 3)]);
    assert_eq!(runner.seen(&of("b", 3)).unwrap().since, since);
    let before = script.tries(&of("b", 3)).len();
    tokio::time::sleep(10 * SECOND).await;
    assert!(script.tries(&of("b", 3)).len() > before);
}

#[tokio::test(start_paused = true)]
async fn falls_and_rises() {
    let (mut runner, script, mut transitions) = runner();
    let one = target(1);
    runner.update(set(&[(one.clone(), every(SECOND))]), unknown);
    let up = transitions.recv().await.unwrap();
    assert_eq!((&up.target, up.health, up.reason.as_str()), (&one, Health::Up, "connected"));
    script.fail(&one, Failure::Refused);
    let before = script.tries(&one).len();
    let down = transitions.recv().await.unwrap();
    assert_eq!((down.health, down.reason.as_str()), (Health::Down, "connection refused"));
    assert_eq!(script.tries(&one).len() - before, 3);
    let seen = runner.seen(&one).unwrap();
    assert_eq!((seen.health, seen.since, seen.streak), (Health::Down, down.at, 3));
    assert_eq!(seen.last.unwrap().result, Err(Failure::Refused));
    script.recover(&one);
    assert_eq!(transitions.recv().await.unwrap().health, Health::Up);
    assert_eq!(script.tries(&one).len() - before, 5);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_could_not_be_made_says_nothing() {
    let (mut runner, script, mut transitions) = runner();
    let one = target(1);
    script.fail(&one, Failure::Local("too many open files".into()));
    runner.update(set(&[(one.clone(), every(SECOND))]), |_| Health::Up);
    tokio::time::sleep(60 * SECOND).await;
    assert!(transitions.try_recv().is_err());
    let seen = runner.seen(&one).unwrap();
    assert_eq!((seen.health, seen.streak), (Health::Up, 0));
    assert!(seen.last.unwrap().result.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_known_from_before_counts() {
    let (mut runner, script, mut transitions) = runner();
    let (one, two) = (target(1), target(2));
    runner.update(set(&[(one.clone(), every(SECOND)), (two.clone(), every(SECOND))]), |target| {
        if *target == one { Health::Down } else { Health::Up }
    });
    let up = transitions.recv().await.unwrap();
    assert_eq!((&up.target, up.health), (&one, Health::Up));
    assert_eq!(script.tries(&one).len(), 2, "rise counts from a known health");
    assert_eq!(runner.seen(&two).unwrap().health, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn an_update_disturbs_only_what_changed() {
    let (mut runner, script, mut transitions) = runner();
    let (same, changed, gone) = (target(1), target(2), target(3));
    let plan = every(600 * SECOND);
    runner.update(
        set(&[(same.clone(), plan.clone()), (changed.clone(), plan.clone()), (gone.clone(), plan.clone())]),
        unknown,
    );
    for _ in 0..3 {
        transitions.recv().await.unwrap();
    }
    script.fail(&changed, Failure::Refused);
    let new = target(4);
    let faster =
        Plan { check: Arc::new(Check { fall: 2, ..(*every(10 * SECOND).check).clone() }), source: None };
    runner.update(
        set(&[(same.clone(), plan.clone()), (changed.clone(), faster), (new.clone(), plan)]),
        unknown,
    );
    assert_eq!(
        runner.snapshot().keys().cloned().collect::<Vec<_>>(),
        [same.clone(), changed.clone(), new.clone()]
    );
    assert_eq!(runner.seen(&changed).unwrap().health, Health::Up, "a changed check keeps what is known");
    let update = Instant::now();
    let mut news = [transitions.recv().await.unwrap(), transitions.recv().await.unwrap()];
    news.sort_by_key(|transition| transition.target.backend);
    assert_eq!((&news[0].target, news[0].health), (&changed, Health::Down));
    assert_eq!((&news[1].target, news[1].health), (&new, Health::Up));
    let tries = script.tries(&changed);
    assert_eq!(tries.len(), 3, "fall is the new one");
    assert!(tries[1] - update <= SECOND + Duration::from_millis(1), "the timer starts anew");
    assert_eq!((script.tries(&same).len(), script.tries(&gone).len()), (1, 1));
    runner.update(BTreeMap::new(), unknown);
    let tries = script.0.tries.lock().unwrap().len();
    tokio::time::sleep(2000 * SECOND).await;
    assert_eq!(script.0.tries.lock().unwrap().len(), tries);
    assert!(runner.seen(&same).is_none());
}

#[tokio::test(start_paused = true)]
async fn never_too_many_at_once() {
    let script = Script::default();
    *script.0.takes.lock().unwrap() = SECOND;
    let (sender, mut transitions) = mpsc::channel(1);
    let mut runner = Runner::new(script.clone(), 8, sender);
    let all: Vec<_> = (0..200).map(target).collect();
    runner.update(all.iter().map(|target| (target.clone(), every(SECOND))).collect(), unknown);
    // The channel holds one: the others wait for the reader, and all arrive.
    let mut up = std::collections::BTreeSet::new();
    while up.len() < all.len() {
        up.insert(transitions.recv().await.unwrap().target);
    }
    assert_eq!(script.0.most.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_server_that_stops_and_comes_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "[[service]]\nname = 'web'\nlisten = 'tcp://192.0.2.10:80'\ncheck = 'tcp,interval=10ms,timeout=10s'\n\
         [[service.backend]]\naddress = '{address}'\n[[service]]\nname = 'unchecked'\nlisten = 'tcp://192.0.2.11:80'\n"
    );
    let desired = crate::config::check(&text, "example").unwrap().desired;
    let (sender, mut transitions) = mpsc::channel(8);
    let mut runner = Runner::new(super::super::Network, CONCURRENCY, sender);
    runner.update(targets(&desired), unknown);
    assert_eq!(transitions.recv().await.unwrap().health, Health::Up);
    drop(listener);
    let down = transitions.recv().await.unwrap();
    assert_eq!((down.health, down.reason.as_str()), (Health::Down, "connection refused"));
    let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
    assert_eq!(transitions.recv().await.unwrap().health, Health::Up);
}
