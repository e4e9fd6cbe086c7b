//! How each change is done: edit the shape, judge it like a file, put it among the others.

use super::super::check::{Checked, from_shape};
use super::super::convert::{self, Typed};
use super::super::finding::{Findings, Path};
use super::super::{export, file, rules};
use super::{Change, Code, Outcome, Refusal, SERVICE_OPTIONS};
use crate::model::{Admin, Backend, Desired, Listen, Mode, Ports, Service, closest, parse_backend, shown};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The last second that a deadline can name: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Does a change.
///
/// # Errors
///
/// If what comes out would not be valid, or what is named does not exist. `desired` is never half changed.
pub fn apply(desired: &Desired, change: Change) -> Result<Outcome, Refusal> {
    match change {
        Change::AddService { service } => add_service(desired, &service),
        Change::PutService { service } => put_service(desired, &service),
        Change::SetService { name, set } => set_service(desired, &name, &set),
        Change::RemoveService { name } => {
            let backends = find(desired, &name)?.backends.len();
            let mut next = desired.clone();
            next.services.remove(&name);
            Ok(outcome(
                desired,
                next,
                format!("service {name} removed, and its {}", count(backends, "backend")),
            ))
        }
        Change::AddBackend { service, backend } => add_backend(desired, &service, &backend),
        Change::SetBackend { service, address, weight } => {
            edit_backend(desired, &service, &address, |backend| {
                let shape = file::Backend { weight: Some(weight), ..export::backend(backend) };
                *backend = judge_backend(&service, &shape, backend.address.port())?;
                Ok(format!("has weight {}", backend.weight))
            })
        }
        Change::RemoveBackend { service, address } => {
            let address = find_backend(find(desired, &service)?, &address)?;
            let mut next = desired.clone();
            if let Some(entry) = next.service_mut(&service) {
                entry.backends.remove(&address);
            }
            let mut outcome =
                outcome(desired, next, format!("backend {} of service {service} removed", shown(&address)));
            outcome.warnings.extend(nobody_left(&outcome.desired, &service));
            Ok(outcome)
        }
        Change::DrainBackend { until: Some(until), .. } if until > LAST_SECOND => Err(Refusal::new(
            Code::Invalid,
            format!("second {until} is too far away for a deadline"),
            "drain without a deadline, and undrain or remove when you like",
        )),
        Change::DrainBackend { service, address, until, remove } => {
            edit_backend(desired, &service, &address, |backend| {
                backend.admin = Admin::Draining { until, remove };
                Ok(if remove { "drains, then is removed" } else { "drains" }.to_owned())
            })
        }
        Change::UndrainBackend { service, address } => edit_backend(desired, &service, &address, |backend| {
            backend.admin = Admin::Active;
            Ok("takes new flows".to_owned())
        }),
        Change::Attach { interface, mode } => {
            let interface = convert::check_interface(&interface)?;
            let mut next = desired.clone();
            next.interfaces.insert(interface.clone(), mode);
            Ok(outcome(desired, next, format!("interface {interface} attached, mode {mode}")))
        }
        Change::Detach { interface } => {
            let mut next = desired.clone();
            match next.interfaces.remove(&interface) {
                Some(_) => Ok(outcome(desired, next, format!("interface {interface} detached"))),
                None => Err(Refusal::new(
                    Code::NotFound,
                    format!("interface {interface} is not attached"),
                    match desired.interfaces.keys().cloned().collect::<Vec<_>>() {
                        names if names.is_empty() => "no interface is; nothing to do".to_owned(),
                        names => format!("attached: {}", names.join(", ")),
                    },
                )),
            }
        }
        Change::DetachAll => {
            let next = Desired { interfaces: BTreeMap::new(), ..desired.clone() };
            Ok(outcome(desired, next, format!("{} detached", count(desired.interfaces.len(), "interface"))))
        }
        Change::Apply { file } => {
            let checked = from_shape(&file)?;
            let warnings = checked.warnings.iter().map(|warning| warning.message.clone()).collect();
            Ok(Outcome { warnings, ..replace(desired, checked)? })
        }
    }
}

/// Puts a checked configuration in the place of what is desired. Interfaces stay if it says nothing of them.
///
/// # Errors
///
/// If a service that stays would get another ring size.
pub fn replace<W>(desired: &Desired, checked: Checked<W>) -> Result<Outcome, Refusal> {
    let mut next = checked.desired;
    if checked.keeps_interfaces {
        next.interfaces.clone_from(&desired.interfaces);
    }
    let (mut added, mut altered) = (0, 0);
    for (name, service) in &mut next.services {
        match desired.services.get(name) {
            None => added += 1,
            // What stays as it is stays shared: later comparisons cost nothing.
            Some(before) if before == service => *service = Arc::clone(before),
            Some(before) => {
                same_ring(before, service)?;
                altered += 1;
            }
        }
    }
    let removed = desired.services.keys().filter(|name| !next.services.contains_key(*name)).count();
    let message = format!("{} added, {altered} changed, {removed} removed", count(added, "service"));
    Ok(outcome(desired, next, message))
}

fn add_service(desired: &Desired, shape: &file::Service) -> Result<Outcome, Refusal> {
    let (service, warnings) = judge_service(shape)?;
    if let Some(before) = desired.services.get(&service.name)
        && **before != service
    {
        let name = &service.name;
        return Err(Refusal::new(
            Code::Conflict,
            format!("service {name} exists and is different"),
            format!(
                "see `lb service show {name}`; change it with `lb service set {name}` or `lb backend add {name}`"
            ),
        ));
    }
    let message = format!(
        "service {} added: {}, mode {}, {}",
        service.name,
        service.listen,
        service.mode,
        count(service.backends.len(), "backend")
    );
    commit(desired, service, message, warnings)
}

fn put_service(desired: &Desired, shape: &file::Service) -> Result<Outcome, Refusal> {
    let (service, warnings) = judge_service(shape)?;
    let done = match desired.services.get(&service.name) {
        Some(before) => {
            same_ring(before, &service)?;
            "changed"
        }
        None => "added",
    };
    let message = format!("service {} {done}", service.name);
    commit(desired, service, message, warnings)
}

fn set_service(desired: &Desired, name: &str, set: &BTreeMap<String, String>) -> Result<Outcome, Refusal> {
    let before = find(desired, name)?;
    let mut shape = export::service(before);
    for (key, value) in set {
        let text = Some(value.clone());
        match key.as_str() {
            "listen" => shape.listen.clone_from(value),
            "mode" => shape.mode = text,
            "scheduler" => shape.scheduler = text,
            "on-down" => shape.on_down = text,
            "announce" => shape.announce = text,
            "idle-timeout" => shape.idle_timeout = text,
            "tracking" => shape.tracking = text,
            "encap-checksum" => shape.encap_checksum = text,
            "check" => shape.check = Some(file::Check::Spec(value.clone())),
            "echo" => {
                let answered = value.parse().map_err(|_| {
                    Refusal::new(
                        Code::Invalid,
                        format!("echo \"{value}\" is neither true nor false"),
                        "write true or false",
                    )
                })?;
                shape.echo = Some(answered);
            }
            "ring-size" => {
                let size = value.parse().map_err(|_| {
                    Refusal::new(
                        Code::Invalid,
                        format!("ring-size \"{value}\" is not a number"),
                        "write a whole number",
                    )
                })?;
                shape.ring_size = Some(size);
            }
            "name" => {
                return Err(Refusal::new(
                    Code::Invalid,
                    format!(
                        "service {name} cannot change its name: its ring is built from it, so flows would move"
                    ),
                    "add a service with the new name and another listener, then remove this one",
                ));
            }
            _ => return Err(unknown_option(key)),
        }
    }
    let mode = shape.mode.as_deref().and_then(|mode| mode.parse::<Mode>().ok()).unwrap_or_default();
    if before.mode.keeps_destination() && mode.keeps_destination() {
        // Backends have no port of their own in such modes: they follow the service's.
        for (backend, address) in shape.backend.iter_mut().zip(before.backends.keys()) {
            backend.address = address.ip().to_string();
        }
    }
    // So do those that had the service's port, when it listens on several.
    if let (Ports::One(port), Ok(listen)) = (before.listen.ports, shape.listen.parse::<Listen>())
        && listen.ports.is_wide()
    {
        for (backend, address) in shape.backend.iter_mut().zip(before.backends.keys()) {
            if address.port() == port {
                backend.address = address.ip().to_string();
            }
        }
    }
    let (service, warnings) = judge_service(&shape)?;
    same_ring(before, &service)?;
    let keys = set.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ");
    commit(desired, service, format!("service {name} changed: {keys}"), warnings)
}

fn unknown_option(key: &str) -> Refusal {
    let list = SERVICE_OPTIONS.join(", ");
    let remedy = match closest(key, SERVICE_OPTIONS) {
        Some(known) => format!("did you mean \"{known}\"? One of: {list}"),
        None => format!("write one of: {list}"),
    };
    Refusal::new(Code::Invalid, format!("a service has no option \"{key}\""), remedy)
}

fn add_backend(desired: &Desired, name: &str, shape: &file::Backend) -> Result<Outcome, Refusal> {
    let mut service = Service::clone(find(desired, name)?);
    let backend = judge_backend(name, shape, service.listen.ports.backend_port())?;
    let address = backend.address;
    match service.backends.get(&address) {
        Some(before) if *before == backend => {}
        Some(before) => {
            let address = shown(&address);
            let remedy = if before.admin == backend.admin {
                format!("change it with `lb backend set {name} {address} --weight {}`", backend.weight)
            } else {
                format!("it is draining; let it serve again with `lb backend undrain {name} {address}`")
            };
            return Err(Refusal::new(
                Code::Conflict,
                format!("service {name}: backend {address} exists and is different"),
                remedy,
            ));
        }
        None => {}
    }
    let message = format!("backend {} added to service {name}, weight {}", shown(&address), backend.weight);
    service.backends.insert(address, backend);
    let (service, warnings) = judge_service(&export::service(&service))?;
    commit(desired, service, message, warnings)
}

/// Edits one backend; `edit` says what the backend does now.
fn edit_backend(
    desired: &Desired,
    name: &str,
    address: &str,
    edit: impl FnOnce(&mut Backend) -> Result<String, Refusal>,
) -> Result<Outcome, Refusal> {
    let address = find_backend(find(desired, name)?, address)?;
    let mut next = desired.clone();
    let mut message = String::new();
    if let Some(backend) = next.service_mut(name).and_then(|service| service.backends.get_mut(&address)) {
        message = format!("backend {} of service {name} {}", shown(&address), edit(backend)?);
    }
    let mut outcome = outcome(desired, next, message);
    outcome.warnings.extend(nobody_left(&outcome.desired, name));
    Ok(outcome)
}

/// Judges a service on its own.
fn judge_service(shape: &file::Service) -> Result<(Service, Vec<String>), Refusal> {
    let mut out = Findings::default();
    let placed = convert::service(shape, &Typed::default(), &Path::default(), &mut out);
    if let Some(placed) = &placed {
        rules::alone(placed, &mut out);
    }
    let warnings =
        out.judge()?.into_iter().map(|finding| format!("{}: {}", finding.message, finding.remedy)).collect();
    match placed {
        Some(placed) => Ok((placed.service, warnings)),
        None => Err(Refusal::new(
            Code::Invalid,
            "the service has no listener",
            "write one like tcp://192.0.2.10:443",
        )),
    }
}

fn judge_backend(service: &str, shape: &file::Backend, port: u16) -> Result<Backend, Refusal> {
    let mut out = Findings::default();
    let backend = convert::backend(&format!("service {service}"), shape, port, &Path::default(), &mut out);
    out.judge()?;
    backend.ok_or_else(|| {
        Refusal::new(Code::Invalid, "the backend has no address", "write one like 10.0.0.11:8443")
    })
}

/// Puts a judged service among the others, if they go together.
fn commit(
    desired: &Desired,
    service: Service,
    message: String,
    warnings: Vec<String>,
) -> Result<Outcome, Refusal> {
    let mut out = Findings::default();
    let others = desired.services.values().map(AsRef::as_ref).filter(|other| other.name != service.name);
    rules::joining(&service, others, &mut out);
    out.judge()?;
    let mut next = desired.clone();
    next.put(service);
    Ok(Outcome { warnings, ..outcome(desired, next, message) })
}

fn outcome(before: &Desired, desired: Desired, message: String) -> Outcome {
    let changed = *before != desired;
    let message = if changed { message } else { "nothing changed: it is already so".to_owned() };
    Outcome { desired, changed, message, warnings: Vec::new() }
}

fn nobody_left(desired: &Desired, name: &str) -> Option<String> {
    let service = desired.services.get(name)?;
    service.active().next().is_none().then(|| {
        format!(
            "service {name} has no backend left that takes new flows: add one with `lb backend add {name}`"
        )
    })
}

fn same_ring(before: &Service, after: &Service) -> Result<(), Refusal> {
    if before.ring_size == after.ring_size {
        return Ok(());
    }
    let name = &before.name;
    Err(Refusal::new(
        Code::Conflict,
        format!(
            "service {name} cannot change its ring-size from {} in this version: flows would move",
            before.ring_size
        ),
        format!("keep ring-size = {}, or remove service {name} and add it again", before.ring_size),
    ))
}

fn find<'a>(desired: &'a Desired, name: &str) -> Result<&'a Service, Refusal> {
    desired.services.get(name).map(AsRef::as_ref).ok_or_else(|| {
        let remedy = match closest(name, desired.services.keys().map(String::as_str)) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => "see `lb service list`".to_owned(),
        };
        Refusal::new(Code::NotFound, format!("there is no service {name:?}"), remedy)
    })
}

/// The backend that is meant: with its port, with the service's port, or the only one of its address.
fn find_backend(service: &Service, text: &str) -> Result<SocketAddr, Refusal> {
    let address = parse_backend(text, service.listen.ports.backend_port())?;
    if service.backends.contains_key(&address) {
        return Ok(address);
    }
    let name = &service.name;
    // A text with a port gives the same address whatever the fallback.
    let said_port = parse_backend(text, address.port() ^ 1)? == address;
    let same: Vec<_> = service.backends.keys().filter(|key| !said_port && key.ip() == address.ip()).collect();
    match same.as_slice() {
        [one] => Ok(**one),
        [] => Err(Refusal::new(
            Code::NotFound,
            format!("service {name} has no backend {text}"),
            format!("see `lb backend list {name}`"),
        )),
        several => {
            let list = several.iter().map(|address| shown(address)).collect::<Vec<_>>().join(", ");
            Err(Refusal::new(
                Code::Conflict,
                format!("service {name} has several backends at {text}"),
                format!("say which port: {list}"),
            ))
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
