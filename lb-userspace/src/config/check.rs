//! A text or a shape → [`Desired`], or everything that is wrong with it.
//!
//! A text is judged in three passes that all run: its syntax, its keys and types (`schema`), and its meaning (`convert`,
//! `rules`).

use super::convert::{self, Placed};
use super::file::{File, Interface};
use super::finding::{Finding, Findings, Path};
use super::{rules, schema};
use crate::model::Sources;
use crate::model::{AttachMode, Desired, InvalidText};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::Range;
use toml::de::DeTable;

/// A configuration that can be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<W = Problem> {
    /// What it asks for.
    pub desired: Desired,
    /// It says nothing of interfaces: those that are attached stay.
    pub keeps_interfaces: bool,
    /// Where the metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What works but is probably not what is wanted.
    pub warnings: Vec<W>,
}

/// Something that is wrong in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}\n  {}", self.file, self.line, self.column, self.message, self.remedy)
    }
}

impl std::error::Error for Problem {}

/// Judges a configuration in TOML. `file_name` is only for messages.
///
/// # Errors
///
/// Every problem, in the order of the text. Warnings are left out then.
pub fn check(text: &str, file_name: &str) -> Result<Checked, Vec<Problem>> {
    let text_of = Text::new(text, file_name);
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(text_of.sorted(errors.iter().map(|error| {
            let message = error.message().replace('\n', ", ");
            let remedy = "correct the TOML; see https://toml.io for its grammar";
            text_of.problem(error.span(), message, remedy)
        })));
    }
    let mut misfits = Vec::new();
    schema::prune(table.get_mut(), schema::FILE, &Path::default(), &mut misfits);
    let shape = match File::deserialize(toml::de::Deserializer::from(table.clone())) {
        Ok(shape) => shape,
        // Not reached while the schema and the shape agree.
        Err(error) => {
            return Err(vec![text_of.problem(
                error.span(),
                error.message(),
                "see `lb export` for the shape",
            )]);
        }
    };
    let locate = |finding: &Finding| {
        text_of.problem(schema::locate(table.get_ref(), &finding.path), &finding.message, &finding.remedy)
    };
    let judged = from_shape(&shape);
    match judged {
        Ok(checked) if misfits.is_empty() => Ok(Checked {
            desired: checked.desired,
            keeps_interfaces: checked.keeps_interfaces,
            metrics: checked.metrics,
            warnings: text_of.sorted(checked.warnings.iter().map(locate)),
        }),
        judged => {
            let removed: Vec<_> = misfits.iter().filter_map(|misfit| misfit.removed.as_ref()).collect();
            let findings = judged.err().unwrap_or_default();
            let told = findings.iter().filter(|finding| !removed.contains(&&finding.path)).map(locate);
            let misfits = misfits
                .iter()
                .map(|misfit| text_of.problem(Some(misfit.span.clone()), &misfit.message, &misfit.remedy));
            Err(text_of.sorted(misfits.chain(told)))
        }
    }
}

/// Judges a shape that came as something else than a file.
///
/// # Errors
///
/// Every finding that is worse than a warning.
pub fn from_shape(shape: &File) -> Result<Checked<Finding>, Vec<Finding>> {
    let mut out = Findings::default();
    let root = Path::default();
    let interfaces = interfaces(shape, &root.key("agent").key("interfaces"), &mut out);
    let sources = sources(shape, &root.key("agent").key("encap-source"), &mut out);
    let metrics = shape.agent.metrics.as_deref().and_then(|text| match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        _ => {
            out.invalid(
                root.key("agent").key("metrics"),
                format!("metrics address \"{text}\" is not an address and port"),
                "write metrics = \"127.0.0.1:9990\"",
            );
            None
        }
    });
    let defaults = convert::options("defaults", shape.defaults.options(), &root.key("defaults"), &mut out);
    let mut services = Vec::with_capacity(shape.service.len());
    for (index, service) in shape.service.iter().enumerate() {
        let path = root.key("service").index(index);
        if let Some(placed) = convert::service(service, &defaults, &path, &mut out) {
            rules::alone(&placed, &mut out);
            services.push(placed);
        }
    }
    rules::together(&services, &mut out);
    let warnings = out.judge()?;
    let services = services
        .into_iter()
        .map(|Placed { service, .. }| (service.name.clone(), service.into()))
        .collect::<BTreeMap<_, _>>();
    let keeps_interfaces = shape.agent.interfaces.is_none();
    Ok(Checked { desired: Desired { interfaces, sources, services }, keeps_interfaces, metrics, warnings })
}

fn sources(shape: &File, path: &Path, out: &mut Findings) -> Sources {
    let mut sources = Sources::default();
    for (index, text) in shape.agent.encap_source.iter().flatten().enumerate() {
        let place = path.index(index);
        // An address alone is a prefix of one.
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(net) = net else {
            out.invalid(
                place,
                format!("encap-source \"{text}\" is not a prefix"),
                "write one like \"198.18.0.0/15\" or \"2001:db8:f::/64\"",
            );
            continue;
        };
        if net.addr() != net.network() {
            out.invalid(
                place,
                format!("encap-source {net} has bits behind its prefix"),
                format!("write \"{}\"", net.trunc()),
            );
            continue;
        }
        let twice = match net {
            IpNet::V4(net) => sources.v4.replace(net).is_some(),
            IpNet::V6(net) => sources.v6.replace(net).is_some(),
        };
        if twice {
            out.conflict(place, format!("encap-source has two prefixes of the family of {net}"), "write one");
        }
    }
    sources
}

fn interfaces(shape: &File, path: &Path, out: &mut Findings) -> BTreeMap<String, AttachMode> {
    let mut interfaces = BTreeMap::new();
    for (index, interface) in shape.agent.interfaces.iter().flatten().enumerate() {
        let place = path.index(index);
        let (name, mode) = match interface {
            Interface::Name(name) => (name, None),
            Interface::Table(table) => (&table.name, table.mode.as_deref()),
        };
        let mode = match mode.map(str::parse) {
            None => AttachMode::Auto,
            Some(Ok(mode)) => mode,
            Some(Err(InvalidText { message, remedy })) => {
                out.invalid(place.key("mode"), format!("interface {name}: {message}"), remedy);
                continue;
            }
        };
        match convert::check_interface(name) {
            Ok(name) => {
                if interfaces.insert(name.clone(), mode).is_some() {
                    out.conflict(place, format!("interface {name} is written twice"), "remove one of them");
                }
            }
            Err(InvalidText { message, remedy }) => out.invalid(place, message, remedy),
        }
    }
    interfaces
}

/// A text that problems are found in.
struct Text<'a> {
    text: &'a str,
    file: &'a str,
    /// Where each line starts: a large file may have a warning for each of its services.
    lines: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(text: &'a str, file: &'a str) -> Self {
        let lines = [0].into_iter().chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { text, file, lines }
    }

    fn problem(
        &self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        let mut start = span.map_or(0, |span| span.start).min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let line = self.lines.partition_point(|first| *first <= start);
        let line_start = line.checked_sub(1).map_or(0, |above| self.lines[above]);
        Problem {
            file: self.file.to_owned(),
            line,
            column: self.text[line_start..start].chars().count() + 1,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn sorted(&self, problems: impl Iterator<Item = Problem>) -> Vec<Problem> {
        let mut problems: Vec<_> = problems.collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        problems
    }
}

#[cfg(test)]
mod tests;
