//! Services that listen on ranges of ports or on every port: exact before range before any, and the way back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;
use lb_tests::frame::{Flow, Kind};
use lb_tests::oracle;
use lb_userspace::model::{Backend, Listen, Mode, Ports, Protocol, Service, Tracking};
use lb_userspace::plan::NextHop;

use crate::case::{Expected, forwarded, passed, returned};
use crate::lab::{LOOPBACK, Lab, Served, address, all, hop, in_lab, served};

/// A service beside those of the lab, on the address of one of them.
#[derive(Clone, Copy)]
pub(crate) struct Wide {
    pub(crate) name: &'static str,
    pub(crate) ports: Ports,
    /// The port that was said of its backend; 0: none.
    pub(crate) port: u16,
    /// The end of its backend's address.
    pub(crate) last: u8,
}

pub(crate) const RANGE: Wide = Wide { name: "range", ports: Ports::Range(8000, 8999), port: 0, last: 5 };
pub(crate) const ANY: Wide = Wide { name: "any", ports: Ports::Any, port: 0, last: 6 };
pub(crate) const SHIFTED: Wide =
    Wide { name: "shifted", ports: Ports::Range(9000, 9099), port: 19_000, last: 7 };
const INSIDE: Wide = Wide { name: "inside", ports: Ports::One(8500), port: 8500, last: 8 };

impl Wide {
    fn backend(&self, v6: bool) -> IpAddr {
        if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, self.last.into()].into() } else { [10, 0, 0, self.last].into() }
    }

    /// Serves it where `like` is served, in its mode.
    pub(crate) fn serve(&self, lab: &mut Lab<'_>, like: &Served) {
        let backend = SocketAddr::new(self.backend(like.vip.is_ipv6()), self.port);
        lab.kernel.hops.insert(backend.ip(), NextHop { macs: hop(self.last), ifindex: LOOPBACK, mtu: 1500 });
        let listen = Listen { protocol: like.protocol, address: like.vip.ip(), ports: self.ports };
        let backends = BTreeMap::from([(backend, Backend::new(backend, 100))]);
        let model = Service::clone(&lab.desired.services[like.name]);
        lab.desired.put(Service { name: self.name.into(), listen, backends, ..model });
        lab.serve();
    }

    /// A client of one of its ports.
    pub(crate) fn at(&self, like: &Served, port: u16) -> Served {
        let there = match self.port {
            0 => port,
            first => port.wrapping_sub(self.ports.first()).wrapping_add(first),
        };
        Served {
            name: self.name,
            vip: SocketAddr::new(like.vip.ip(), port),
            backend: SocketAddr::new(self.backend(like.vip.is_ipv6()), there),
            macs: hop(self.last),
            ..like.clone()
        }
    }
}

/// A test with some services beside each of the lab's, one after the other.
pub(crate) fn beside_each(wide: &[&Wide], test: impl Fn(&mut Lab<'_>, &Served) + Sync) {
    in_lab(|lab| {
        for like in all() {
            wide.iter().for_each(|wide| wide.serve(lab, &like));
            test(lab, &like);
            wide.iter().for_each(|wide| {
                lab.desired.services.remove(wide.name);
            });
            lab.serve();
        }
        assert_eq!(lab.kernel.tables.ranges.used(), 0, "no list is left behind");
    });
}

pub(crate) fn opens(served: &Served, expected: Expected) -> Expected {
    if served.protocol == Protocol::Tcp { expected.new_flow() } else { expected }
}

/// A request goes to the backend, and its reply back to the client.
fn there_and_back(lab: &mut Lab<'_>, served: &Served) {
    let (name, port) = (served.name, served.vip.port());
    let request = served.request();
    let out = served.request_out(&request).build();
    oracle::check(&out);
    lab.flow(format!("{name}: port {port} goes to its backend"), &request)
        .expect(opens(served, forwarded(served, &out)));
    let reply = served.reply();
    if served.mode == Mode::Nat {
        let out = served.reply_out(&reply).build();
        oracle::check(&out);
        lab.flow(format!("{name}: a reply to port {port} goes to its client"), &reply)
            .expect(returned(served, &out));
    }
}

fn foreign(lab: &mut Lab<'_>, sentence: &str, flow: &Flow) {
    lab.flow(sentence, flow).expect(passed(Reason::NotAService));
}

#[test]
fn one_port_comes_before_a_range_and_a_range_before_every_port() {
    beside_each(&[&ANY, &RANGE, &INSIDE], |lab, like| {
        for port in [1, 7999, 9000, 65_535] {
            there_and_back(lab, &ANY.at(like, port));
        }
        for port in [8000, 8499, 8501, 8999] {
            there_and_back(lab, &RANGE.at(like, port));
        }
        there_and_back(lab, &INSIDE.at(like, 8500));
        there_and_back(lab, like);
    });
}

#[test]
fn a_range_ends_where_it_ends() {
    beside_each(&[&RANGE], |lab, like| {
        for port in [8000, 8999] {
            there_and_back(lab, &RANGE.at(like, port));
        }
        for port in [1, 7999, 9000, 65_535] {
            let beside = RANGE.at(like, port);
            foreign(lab, &format!("{}: port {port} is not in the range", like.name), &beside.request());
            foreign(lab, &format!("{}: no reply comes from port {port}", like.name), &beside.reply());
        }
        let other = Protocol::ALL.iter().copied().find(|protocol| *protocol != like.protocol);
        let other = Served { protocol: other.unwrap(), ..RANGE.at(like, 8000) };
        foreign(lab, "the range of another protocol", &other.request());
        foreign(lab, "replies of another protocol", &other.reply());
        let elsewhere = if like.vip.is_ipv6() { address("2001:db8::81") } else { address("192.0.2.81") };
        let elsewhere = Served { vip: SocketAddr::new(elsewhere, 8000), ..RANGE.at(like, 8000) };
        foreign(lab, "the range of another address", &elsewhere.request());
        if like.mode == Mode::L2 {
            foreign(lab, "direct returns are not ours", &RANGE.at(like, 8000).reply());
        }
    });
}

#[test]
fn ranges_shift_to_the_port_of_a_backend() {
    beside_each(&[&SHIFTED, &ANY], |lab, like| {
        if like.mode == Mode::L2 {
            return;
        }
        for port in [9000, 9001, 9050, 9099] {
            there_and_back(lab, &SHIFTED.at(like, port));
        }
        for port in [8999, 9100] {
            there_and_back(lab, &ANY.at(like, port));
        }
        for port in [18_999, 19_100] {
            let beside = Served {
                backend: SocketAddr::new(SHIFTED.at(like, 9000).backend.ip(), port),
                ..like.clone()
            };
            foreign(lab, &format!("a reply from port {port} is beside the range"), &beside.reply());
        }
    });
}

#[test]
fn unfinished_checksums_are_finished_for_ranges_too() {
    beside_each(&[&RANGE, &SHIFTED], |lab, like| {
        if like.mode == Mode::L2 {
            return;
        }
        for served in [RANGE.at(like, 8321), SHIFTED.at(like, 9021)] {
            let request = served.request().data();
            lab.case(format!("{}: an unfinished request", served.name), oracle::unfinished(&request))
                .expect(forwarded(&served, &served.request_out(&request).build()));
            let reply = served.reply();
            lab.case(format!("{}: an unfinished reply", served.name), oracle::unfinished(&reply))
                .expect(returned(&served, &served.reply_out(&reply).build()));
        }
    });
}

/// Whatever ports sum to, so do their checksums: 0 and 0xffff are the same sum, but not the same checksum.
#[test]
fn checksums_are_right_for_every_port() {
    in_lab(|lab| {
        let like = served("udp4-nat");
        ANY.serve(lab, &like);
        SHIFTED.serve(lab, &like);
        let frames = |served: &Served| {
            let (request, reply) = (served.request(), served.reply());
            [(served.request_out(&request), request), (served.reply_out(&reply), reply)]
        };
        let any = (1..=u16::MAX).step_by(7).filter(|port| !(9000..9100).contains(port));
        let all =
            any.map(|port| ANY.at(&like, port)).chain((9000..=9099).map(|port| SHIFTED.at(&like, port)));
        for served in all.filter(|served| served.vip != like.vip && served.vip.port() != 443) {
            for (out, flow) in frames(&served) {
                let ran = lab
                    .kernel
                    .runner()
                    .run(lb_common::abi::names::BALANCE, &flow.build(), LOOPBACK, 1)
                    .expect("the kernel runs it");
                assert_eq!(ran.frame, out.build(), "port {}", served.vip.port());
            }
        }
    });
}

#[test]
fn flows_to_two_ports_of_a_range_are_two_flows() {
    // Ids are used again, and nobody forgets flows here: each on a balancer of its own.
    for like in ["tcp4-nat", "udp6-nat", "tcp6-l2", "udp4-l2"].map(served) {
        in_lab(|lab| {
            RANGE.serve(lab, &like);
            lab.change(RANGE.name, |service| service.tracking = Tracking::Always);
            for port in [8000, 8001] {
                let served = RANGE.at(&like, port);
                let mut flow = served.request();
                flow.kind = if served.protocol == Protocol::Tcp { Kind::Syn } else { Kind::Data };
                let (id, owner) = (lab.id(&served, 5000), lab.owner(&served));
                let expected = opens(&served, forwarded(&served, &served.request_out(&flow).build()));
                let expected = match served.protocol {
                    Protocol::Tcp => expected.embryo(id, Some(owner)),
                    Protocol::Udp => expected.new_flow().flow(id, Some(owner)),
                };
                lab.flow(format!("{}: port {port} has an entry of its own", like.name), &flow)
                    .expect(expected);
            }
        });
    }
}

#[test]
fn ranges_change_in_place() {
    beside_each(&[&ANY, &RANGE], |lab, like| {
        let set = |lab: &mut Lab<'_>, ports| lab.change(RANGE.name, |service| service.listen.ports = ports);
        let row = lab.kernel.service(RANGE.name).id;
        set(lab, Ports::Range(8500, 9500));
        for port in [8000, 8499, 9501] {
            there_and_back(lab, &ANY.at(like, port));
        }
        for port in [8500, 9500] {
            there_and_back(lab, &RANGE.at(like, port));
        }
        set(lab, Ports::Range(8000, 8100));
        there_and_back(lab, &ANY.at(like, 8500));
        there_and_back(lab, &RANGE.at(like, 8100));
        assert_eq!(lab.kernel.service(RANGE.name).id, row, "it is the same service");
    });
}
