//! One service of the shape → one of the model: words, numbers and durations, each wrong one reported.
//!
//! What concerns a service as a whole, or several, is in [`super::rules`].

use super::file::{self, Options};
use super::finding::{Findings, Path};
use crate::model::{
    Admin, Announce, Backend, Check, EncapChecksum, InvalidText, Listen, Mode, OnDown, Service, Tracking,
    parse_backend, shown,
};
use lb_common::maglev;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

mod check;

/// A service and where it was written.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) service: Service,
    pub(super) at: Path,
    /// Backends by address: the number that each has in the shape.
    pub(super) backends: BTreeMap<SocketAddr, usize>,
}

impl Placed {
    /// Where the address of a backend was written.
    pub(super) fn address_of(&self, index: usize) -> Path {
        self.at.key("backend").index(index).key("address")
    }
}

/// Options whose words are known to be right.
#[derive(Clone, Debug, Default)]
pub(super) struct Typed {
    mode: Option<Mode>,
    on_down: Option<OnDown>,
    announce: Option<Announce>,
    idle_timeout: Option<Duration>,
    tracking: Option<Tracking>,
    encap_checksum: Option<EncapChecksum>,
    echo: Option<bool>,
    ring_size: Option<u32>,
    /// Outer: something was said. Inner: it was not `none`.
    check: Option<Option<Check>>,
}

/// Shortest and longest time a silent flow can be remembered.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Judges one subject: what is found is said with its name, and placed under its path.
struct Judge<'a> {
    subject: &'a str,
    path: &'a Path,
    out: &'a mut Findings,
}

impl Judge<'_> {
    fn invalid(&mut self, key: &str, message: impl AsRef<str>, remedy: impl Into<String>) {
        self.out.invalid(self.path.key(key), format!("{}: {}", self.subject, message.as_ref()), remedy);
    }

    fn take<T>(&mut self, key: &str, result: Result<T, InvalidText>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(InvalidText { message, remedy }) => {
                self.invalid(key, message, remedy);
                None
            }
        }
    }

    fn word<T: FromStr<Err = InvalidText>>(&mut self, key: &str, text: Option<&str>) -> Option<T> {
        text.and_then(|text| self.take(key, text.parse()))
    }

    fn duration(&mut self, key: &str, text: Option<&str>, range: (Duration, Duration)) -> Option<Duration> {
        let text = text?;
        let (least, most) = range;
        let bounds = format!(
            "write a duration from {} to {}, like 2s, 500ms or 15m",
            humantime::format_duration(least),
            humantime::format_duration(most)
        );
        match humantime::parse_duration(text) {
            Ok(duration) if duration >= least && duration <= most => Some(duration),
            Ok(_) => {
                self.invalid(key, format!("{key} \"{text}\" is out of range"), bounds);
                None
            }
            Err(_) => {
                self.invalid(key, format!("{key} \"{text}\" is not a duration"), bounds);
                None
            }
        }
    }

    fn number(&mut self, key: &str, number: Option<i64>, least: i64, most: i64) -> Option<u32> {
        let number = number?;
        let value = u32::try_from(number).ok().filter(|_| number >= least && number <= most);
        if value.is_none() {
            self.invalid(
                key,
                format!("{key} {number} is out of range"),
                format!("write a whole number from {least} to {most}"),
            );
        }
        value
    }
}

/// Judges the options of a service or of the defaults.
pub(super) fn options(subject: &str, options: Options<'_>, path: &Path, out: &mut Findings) -> Typed {
    let mut judge = Judge { subject, path, out };
    let typed = Typed {
        mode: judge.word("mode", options.mode),
        on_down: judge.word("on-down", options.on_down),
        announce: judge.word("announce", options.announce),
        idle_timeout: judge.duration("idle-timeout", options.idle_timeout, IDLE),
        tracking: judge.word("tracking", options.tracking),
        encap_checksum: judge.word("encap-checksum", options.encap_checksum),
        echo: options.echo,
        ring_size: options.ring_size.and_then(|size| ring_size(&mut judge, size)),
        check: None,
    };
    match options.scheduler {
        None | Some("maglev") => {}
        Some(other) => judge.invalid(
            "scheduler",
            format!("scheduler \"{other}\" is not available in this version"),
            "write \"maglev\", or leave it out",
        ),
    }
    Typed {
        check: options.check.and_then(|shape| check::judge(subject, shape, &path.key("check"), out)),
        ..typed
    }
}

fn ring_size(judge: &mut Judge<'_>, size: i64) -> Option<u32> {
    let known = maglev::SIZES.into_iter().find(|known| i64::from(*known) == size);
    if known.is_none() {
        let sizes = maglev::SIZES.map(|size| size.to_string()).join(", ");
        judge.invalid(
            "ring-size",
            format!("ring-size {size} is not one of the primes"),
            format!("write one of: {sizes}"),
        );
    }
    known
}

/// Judges one service. `None` if it has no address that the rest could be judged by.
pub(super) fn service(
    shape: &file::Service,
    defaults: &Typed,
    path: &Path,
    out: &mut Findings,
) -> Option<Placed> {
    let subject =
        if shape.name.is_empty() { "a service".to_owned() } else { format!("service {}", shape.name) };
    let mut judge = Judge { subject: &subject, path, out };
    let name = judge.take("name", check_name(&shape.name));
    let listen: Option<Listen> = if shape.listen.is_empty() {
        judge.invalid("listen", "it has no listener", "write listen = \"tcp://192.0.2.10:443\"");
        None
    } else {
        judge.word("listen", Some(&shape.listen))
    };
    let own = options(&subject, shape.options(), path, out);
    let mut backends = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (index, backend_shape) in shape.backend.iter().enumerate() {
        let place = || path.key("backend").index(index);
        let port = listen.map_or(1, |listen| listen.ports.backend_port());
        let judged = plain(backend_shape, port);
        let judged = judged.or_else(|| backend(&subject, backend_shape, port, &place(), out));
        let Some(backend) = judged else { continue };
        let address = backend.address;
        if backends.insert(address, backend).is_some() {
            out.conflict(
                place().key("address"),
                format!("{subject}: backend {} is written twice", shown(&address)),
                "remove one of them; a larger share is a larger weight",
            );
        } else {
            places.insert(address, index);
        }
    }
    let listen = listen?;
    let service = Service {
        name: name?,
        listen,
        mode: own.mode.or(defaults.mode).unwrap_or_default(),
        check: own.check.or_else(|| defaults.check.clone()).flatten(),
        on_down: own.on_down.or(defaults.on_down).unwrap_or_default(),
        announce: own.announce.or(defaults.announce).unwrap_or_default(),
        idle_timeout: own
            .idle_timeout
            .or(defaults.idle_timeout)
            .unwrap_or_else(|| listen.protocol.default_idle_timeout()),
        tracking: own.tracking.or(defaults.tracking).unwrap_or_default(),
        encap_checksum: own.encap_checksum.or(defaults.encap_checksum).unwrap_or_default(),
        echo: own.echo.or(defaults.echo).unwrap_or(true),
        ring_size: own.ring_size.or(defaults.ring_size).unwrap_or(maglev::DEFAULT_SIZE),
        // Built anew from what is sorted, its nodes are full: there may be a hundred thousand backends.
        backends: backends.into_iter().collect(),
    };
    Some(Placed { service, at: path.clone(), backends: places })
}

/// A backend of which there is nothing to say: as most are, and judged without a place for messages.
fn plain(shape: &file::Backend, port: u16) -> Option<Backend> {
    let address = parse_backend(&shape.address, port).ok()?;
    let weight = u32::try_from(shape.weight.unwrap_or(i64::from(Backend::DEFAULT_WEIGHT))).ok()?;
    (weight <= Backend::MAX_WEIGHT && shape.draining.is_none()).then_some(Backend::new(address, weight))
}

/// Judges one backend; `port` is used if it has none.
pub(super) fn backend(
    subject: &str,
    shape: &file::Backend,
    port: u16,
    path: &Path,
    out: &mut Findings,
) -> Option<Backend> {
    let subject = if shape.address.is_empty() {
        subject.to_owned()
    } else {
        format!("{subject}: backend {}", shape.address)
    };
    let mut judge = Judge { subject: &subject, path, out };
    let address = if shape.address.is_empty() {
        judge.invalid("address", "a backend has no address", "write address = \"10.0.0.11:8443\"");
        None
    } else {
        judge.take("address", parse_backend(&shape.address, port))
    };
    let weight = judge.number("weight", shape.weight, 0, i64::from(Backend::MAX_WEIGHT));
    let admin = match &shape.draining {
        None => Admin::Active,
        Some(draining) => {
            let until = draining.until.as_deref().and_then(|text| {
                let seconds = instant(text);
                if seconds.is_none() {
                    judge.invalid(
                        "draining",
                        format!("\"{text}\" is not a time"),
                        "write it in UTC like 2026-01-31T12:00:00Z",
                    );
                }
                seconds
            });
            Admin::Draining { until, remove: draining.remove }
        }
    };
    Some(Backend { address: address?, weight: weight.unwrap_or(Backend::DEFAULT_WEIGHT), admin })
}

fn instant(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Judges the name of a service.
pub(super) fn check_name(name: &str) -> Result<String, InvalidText> {
    const SHAPE: &str = "write 1 to 63 letters, digits, -, _ or ., the first a letter or digit";
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match name {
        "" => Err(InvalidText::new("it has no name", SHAPE)),
        _ if first && rest && name.len() <= 63 => Ok(name.to_owned()),
        _ => Err(InvalidText::new(format!("name {name:?} is not a name"), SHAPE)),
    }
}

/// Judges the name of an interface: what the kernel accepts (`dev_valid_name`, net/core/dev.c).
pub(super) fn check_interface(name: &str) -> Result<String, InvalidText> {
    let bad =
        |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || !byte.is_ascii_graphic();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(InvalidText::new(
            format!("{name:?} is not the name of an interface"),
            "write 1 to 15 characters without spaces, / and :, as `ip link` shows it",
        ));
    }
    Ok(name.to_owned())
}
