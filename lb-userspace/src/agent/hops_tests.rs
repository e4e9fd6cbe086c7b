//! What the kernel tells of neighbours, and whose turn it is.

use super::*;
use crate::net::nexthop;

fn way(gateway: Option<IpAddr>, neighbour: IpAddr, mac: [u8; 6]) -> Arc<Answer> {
    Arc::new(Ok(nexthop::NextHop {
        ifindex: 3,
        interface: "eth0".into(),
        source_mac: [9; 6],
        gateway,
        neighbour,
        mac: Some(mac),
        state: State::Reachable,
        mtu: 1500,
    }))
}

#[tokio::test]
async fn what_is_told_of_a_neighbour_concerns_whoever_is_behind_it() {
    let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
    let (gateway, behind) = (ip(1), way(Some(ip(1)), ip(1), [1; 6]));
    let mut hops = Hops::new(Netlink::open().unwrap());
    let far = [ip(10), ip(11), ip(13)];
    let mut answers: Vec<_> = far.iter().map(|addr| (*addr, Arc::clone(&behind))).collect();
    answers.insert(2, (ip(12), way(None, ip(12), [2; 6])));
    assert_eq!(hops.take(answers).len(), 4);
    let tell = async |hops: &mut Hops, change| hops.changed(&[change]).await.unwrap();
    let entry = |mac, state| Neighbour { ifindex: 3, address: gateway, mac, state };
    let confirmed = Change::Neighbour(entry(Some([1; 6]), State::Stale));
    assert_eq!(tell(&mut hops, confirmed).await, BTreeSet::new());
    assert_eq!(hops.answer(ip(10)).unwrap().as_ref().unwrap().state, State::Stale);
    assert!(Arc::ptr_eq(&hops.answers[&ip(10)], &hops.answers[&ip(11)]));
    // Another interface's neighbour of the same address is somebody else.
    let other = Neighbour { ifindex: 4, ..entry(Some([7; 6]), State::Reachable) };
    assert_eq!(tell(&mut hops, Change::Neighbour(other)).await, BTreeSet::new());
    let moved = Change::Neighbour(entry(Some([5; 6]), State::Reachable));
    assert_eq!(tell(&mut hops, moved).await, BTreeSet::from(far));
    assert!(far.iter().all(|addr| hops.known()[addr].macs == [5, 5, 5, 5, 5, 5, 9, 9, 9, 9, 9, 9]));
    let gone = Change::NeighbourGone { ifindex: 3, address: gateway };
    assert_eq!(tell(&mut hops, gone).await, BTreeSet::new());
    assert_eq!(hops.answer(ip(13)).unwrap().as_ref().unwrap().mac, None);
    assert_eq!(hops.known()[&ip(13)].macs[0], 5, "where it was seen last is better than nowhere");
    assert_eq!(hops.known()[&ip(12)].macs[0], 2);
}

#[test]
fn everybody_has_a_turn() {
    let set: BTreeSet<usize> = (0..AT_ONCE * 2 + 100).collect();
    let mut last = None;
    let mut turns = vec![0; set.len()];
    for _ in 0..21 {
        let some = some_of(&set, &mut last);
        assert_eq!(some.len(), AT_ONCE);
        some.into_iter().for_each(|n| turns[n] += 1);
    }
    assert!(turns.iter().all(|n| (9..=10).contains(n)), "{turns:?}");
    assert_eq!(some_of(&BTreeSet::from([5, 7]), &mut last).len(), 2);
    assert_eq!(some_of(&BTreeSet::new(), &mut last), Vec::<usize>::new());
}
