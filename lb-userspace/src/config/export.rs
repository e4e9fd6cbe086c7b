//! [`Desired`] → the shape and the text that mean it: only what differs from the defaults, in the manual's order.

use super::file::{self, Agent, CheckTable, Draining, File, Interface, InterfaceTable};
use crate::model::Sources;
use crate::model::{Admin, AttachMode, Backend, Check, CheckKind, Desired, HttpMethod, Service, shown};
use lb_common::maglev;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

/// Writes a configuration that [`super::check()`] reads back as the same.
///
/// # Errors
///
/// If the serialiser fails, which no valid [`Desired`] makes it do.
pub fn export(desired: &Desired, metrics: Option<SocketAddr>) -> Result<String, toml::ser::Error> {
    toml::to_string(&to_shape(desired, metrics))
}

/// The shape of everything that is desired.
pub fn to_shape(desired: &Desired, metrics: Option<SocketAddr>) -> File {
    let interfaces: Vec<_> = desired
        .interfaces
        .iter()
        .map(|(name, mode)| match mode {
            AttachMode::Auto => Interface::Name(name.clone()),
            mode => Interface::Table(InterfaceTable { name: name.clone(), mode: Some(mode.to_string()) }),
        })
        .collect();
    File {
        agent: Agent {
            interfaces: (!interfaces.is_empty()).then_some(interfaces),
            encap_source: sources(desired.sources),
            metrics: metrics.map(|address| address.to_string()),
        },
        defaults: file::Defaults::default(),
        service: desired.services.values().map(|shared| service(shared)).collect(),
    }
}

fn sources(sources: Sources) -> Option<Vec<String>> {
    let v4 = sources.v4.map(|net| net.to_string());
    let both: Vec<_> = v4.into_iter().chain(sources.v6.map(|net| net.to_string())).collect();
    (!both.is_empty()).then_some(both)
}

/// The shape of a service: the body of `PUT /v1/services/NAME`.
pub fn service(service: &Service) -> file::Service {
    let idle = service.idle_timeout;
    let ring_size = service.ring_size;
    file::Service {
        name: service.name.clone(),
        listen: service.listen.to_string(),
        mode: unless_default(service.mode),
        scheduler: None,
        on_down: unless_default(service.on_down),
        announce: unless_default(service.announce),
        idle_timeout: (idle != service.listen.protocol.default_idle_timeout()).then(|| duration(idle)),
        tracking: unless_default(service.tracking),
        encap_checksum: unless_default(service.encap_checksum),
        echo: (!service.echo).then_some(false),
        ring_size: (ring_size != maglev::DEFAULT_SIZE).then_some(i64::from(ring_size)),
        check: service.check.as_ref().map(|check| file::Check::Table(check_table(check))),
        backend: service.backends.values().map(backend).collect(),
    }
}

/// The shape of a backend.
pub fn backend(backend: &Backend) -> file::Backend {
    file::Backend {
        address: shown(&backend.address),
        weight: (backend.weight != Backend::DEFAULT_WEIGHT).then_some(i64::from(backend.weight)),
        draining: match backend.admin {
            Admin::Active => None,
            Admin::Draining { until, remove } => Some(Draining { until: until.map(instant), remove }),
        },
    }
}

/// The shape of a check.
pub(super) fn check_table(check: &Check) -> CheckTable {
    let mut table = CheckTable {
        kind: check.kind.as_str().to_owned(),
        interval: (check.interval != Check::DEFAULT_INTERVAL).then(|| duration(check.interval)),
        timeout: (check.timeout != Check::DEFAULT_TIMEOUT).then(|| duration(check.timeout)),
        rise: (check.rise != Check::DEFAULT_RISE).then_some(i64::from(check.rise)),
        fall: (check.fall != Check::DEFAULT_FALL).then_some(i64::from(check.fall)),
        port: check.port.map(i64::from),
        ..CheckTable::default()
    };
    if let CheckKind::Http { method, path, host, expect } = &check.kind {
        table.path = Some(path.clone());
        table.method = (*method != HttpMethod::Get).then(|| method.to_string());
        table.host.clone_from(host);
        table.expect = (*expect != Check::DEFAULT_EXPECT).then(|| format!("{}-{}", expect.0, expect.1));
    }
    table
}

fn unless_default<T: Default + PartialEq + ToString>(value: T) -> Option<String> {
    (value != T::default()).then(|| value.to_string())
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn instant(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arbitrary::desired;
    use crate::config::check;
    use crate::config::check::from_shape;
    use proptest::prelude::*;

    const EXAMPLE: &str = r#"[agent]
interfaces = ["eth0", { name = "eth1", mode = "generic" }]
metrics = "127.0.0.1:9990"

[[service]]
name = "web"
listen = "tcp://192.0.2.10:443"
on-down = "keep"
idle-timeout = "20m"

[service.check]
kind = "http"
path = "/healthz"
rise = 5

[[service.backend]]
address = "10.0.0.11:8443"
weight = 50

[[service.backend]]
address = "10.0.0.12:8443"
"#;

    #[test]
    fn is_what_one_would_write() {
        let checked = check(EXAMPLE, "lb.toml").unwrap();
        assert_eq!(export(&checked.desired, checked.metrics).unwrap(), EXAMPLE);
    }

    proptest! {
        #[test]
        fn comes_back(desired in desired()) {
            let text = export(&desired, None).unwrap();
            let checked = check(&text, "lb.toml").map_err(|problems| TestCaseError::fail(format!("{problems:?}\n{text}")))?;
            prop_assert_eq!(checked.desired, desired);
        }

        #[test]
        fn a_check_comes_back_from_its_line(desired in desired()) {
            for service in desired.services.values() {
                let Some(check) = &service.check else { continue };
                let mut shape = super::service(service);
                shape.check = Some(file::Check::Spec(crate::config::spec::format(check)));
                let file = File { service: vec![shape], ..File::default() };
                let checked = from_shape(&file).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
                prop_assert_eq!(checked.desired.services[&service.name].check.as_ref(), Some(check));
            }
        }
    }
}
