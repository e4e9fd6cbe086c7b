//! Which keys a configuration may have and of which type: finds every misspelt key and wrong type in one pass.
//!
//! serde's `deny_unknown_fields` says the same, but stops at the first. What is wrong is taken out of the table, so
//! that the rest can be judged. A test holds the lists against [`super::file`].

use super::finding::{Path, Step};
use crate::model::closest;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// What may stand behind a key.
#[derive(Clone, Copy)]
pub(super) enum Type {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// A table.
    Table(&'static [Key]),
    /// An array of texts.
    Texts,
    /// A text or a table.
    TextOrTable(&'static [Key]),
    /// An array of tables.
    Tables(&'static [Key]),
    /// An array of texts or tables.
    TextsOrTables(&'static [Key]),
}

/// A key, what stands behind it, and how to write it.
pub(super) struct Key(pub(super) &'static str, pub(super) Type, &'static str);

/// The whole file.
pub(super) const FILE: &[Key] = &[
    Key("agent", Type::Table(AGENT), "[agent]"),
    Key("defaults", Type::Table(DEFAULTS), "[defaults]"),
    Key("service", Type::Tables(SERVICE), "[[service]], with two brackets, once for each service"),
];

const AGENT: &[Key] = &[
    Key(
        "interfaces",
        Type::TextsOrTables(INTERFACE),
        r#"interfaces = ["eth0", { name = "eth1", mode = "generic" }]"#,
    ),
    Key("encap-source", Type::Texts, r#"encap-source = ["198.18.0.0/15", "2001:db8:f::/64"]"#),
    Key("metrics", Type::Text, r#"metrics = "127.0.0.1:9990""#),
];

const INTERFACE: &[Key] =
    &[Key("name", Type::Text, r#"name = "eth0""#), Key("mode", Type::Text, r#"mode = "generic""#)];

const MODE: Key = Key("mode", Type::Text, r#"mode = "nat""#);
const SCHEDULER: Key = Key("scheduler", Type::Text, r#"scheduler = "maglev""#);
const ON_DOWN: Key = Key("on-down", Type::Text, r#"on-down = "rehash""#);
const ANNOUNCE: Key = Key("announce", Type::Text, r#"announce = "interface""#);
const IDLE_TIMEOUT: Key =
    Key("idle-timeout", Type::Text, r#"a duration with a unit, in quotes: idle-timeout = "15m""#);
const TRACKING: Key = Key("tracking", Type::Text, r#"tracking = "adaptive""#);
const ENCAP_CHECKSUM: Key = Key("encap-checksum", Type::Text, r#"encap-checksum = "udp""#);
const ECHO: Key = Key("echo", Type::Flag, "echo = false");
const RING_SIZE: Key = Key("ring-size", Type::Number, "ring-size = 16381");
const SERVICE_CHECK: Key =
    Key("check", Type::TextOrTable(CHECK), r#"[service.check] with kind = "http", or check = "http:/""#);

const DEFAULTS: &[Key] = &[
    MODE,
    SCHEDULER,
    ON_DOWN,
    ANNOUNCE,
    IDLE_TIMEOUT,
    TRACKING,
    ENCAP_CHECKSUM,
    ECHO,
    RING_SIZE,
    SERVICE_CHECK,
];

const SERVICE: &[Key] = &[
    Key("name", Type::Text, r#"name = "web""#),
    Key("listen", Type::Text, r#"listen = "tcp://192.0.2.10:443""#),
    MODE,
    SCHEDULER,
    ON_DOWN,
    ANNOUNCE,
    IDLE_TIMEOUT,
    TRACKING,
    ENCAP_CHECKSUM,
    ECHO,
    RING_SIZE,
    SERVICE_CHECK,
    Key("backend", Type::Tables(BACKEND), "[[service.backend]], with two brackets, once for each backend"),
];

const CHECK: &[Key] = &[
    Key("kind", Type::Text, r#"kind = "http""#),
    Key("path", Type::Text, r#"path = "/healthz""#),
    Key("method", Type::Text, r#"method = "GET""#),
    Key("host", Type::Text, r#"host = "example.org""#),
    Key("expect", Type::Text, r#"a code or a range, in quotes: expect = "200-399""#),
    Key("interval", Type::Text, r#"a duration with a unit, in quotes: interval = "2s""#),
    Key("timeout", Type::Text, r#"a duration with a unit, in quotes: timeout = "1s""#),
    Key("rise", Type::Number, "rise = 2"),
    Key("fall", Type::Number, "fall = 3"),
    Key("port", Type::Number, "a number from 1 to 65535: port = 8080"),
];

const BACKEND: &[Key] = &[
    Key("address", Type::Text, r#"address = "10.0.0.11:8443""#),
    Key("weight", Type::Number, "a whole number from 0 to 65535: weight = 100"),
    Key("draining", Type::Table(DRAINING), "draining = {}"),
];

const DRAINING: &[Key] = &[
    Key("until", Type::Text, r#"a time in quotes: until = "2026-01-31T12:00:00Z""#),
    Key("remove", Type::Flag, "remove = true"),
];

/// A key or a type that is wrong.
pub(super) struct Misfit {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) remedy: String,
    /// What was taken out; nothing else need be said of it. `None`: a key that does not exist.
    pub(super) removed: Option<Path>,
}

/// Takes out of `table` whatever does not fit, and says why.
pub(super) fn prune(table: &mut DeTable<'_>, keys: &'static [Key], path: &Path, out: &mut Vec<Misfit>) {
    for (name, mut value) in std::mem::take(table) {
        let span = value.span();
        let Some(Key(_, kind, write)) = keys.iter().find(|key| key.0 == name.get_ref()) else {
            out.push(unknown(name.get_ref(), name.span(), keys, path));
            continue;
        };
        let place = path.key(name.get_ref());
        let was = value.get_ref().type_str();
        let fits = match (kind, value.get_mut()) {
            (Type::Text | Type::TextOrTable(_), DeValue::String(_)) | (Type::Flag, DeValue::Boolean(_)) => {
                true
            }
            (Type::Number, DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).is_ok()
            }
            (Type::Table(keys) | Type::TextOrTable(keys), DeValue::Table(table)) => {
                prune(table, keys, &place, out);
                true
            }
            (Type::Texts, DeValue::Array(array)) => array.iter().all(|item| item.get_ref().is_str()),
            (Type::Tables(keys), DeValue::Array(array)) => {
                let fits = array.iter().all(|item| item.get_ref().is_table());
                prune_each(array, keys, &place, out);
                fits
            }
            (Type::TextsOrTables(keys), DeValue::Array(array)) => {
                let fits = array.iter().all(|item| item.get_ref().is_table() || item.get_ref().is_str());
                prune_each(array, keys, &place, out);
                fits
            }
            _ => false,
        };
        if fits {
            table.insert(name, value);
        } else {
            let message = match was {
                "integer" => format!("{place} is a number that does not fit here"),
                was => format!("{place} has the wrong type: {was}"),
            };
            out.push(Misfit { span, message, remedy: format!("write {write}"), removed: Some(place) });
        }
    }
}

fn prune_each(array: &mut toml::de::DeArray<'_>, keys: &'static [Key], path: &Path, out: &mut Vec<Misfit>) {
    for (index, item) in array.iter_mut().enumerate() {
        if let DeValue::Table(table) = item.get_mut() {
            prune(table, keys, &path.index(index), out);
        }
    }
}

fn unknown(name: &str, span: Range<usize>, keys: &'static [Key], path: &Path) -> Misfit {
    let list = keys.iter().map(|key| key.0).collect::<Vec<_>>().join(", ");
    let place = match path.0.last() {
        None => "the file".to_owned(),
        Some(_) => path.to_string(),
    };
    let remedy = match closest(name, keys.iter().map(|key| key.0)) {
        Some(known) => format!("did you mean \"{known}\"? Keys here: {list}"),
        None => format!("remove it; keys here: {list}"),
    };
    Misfit { span, message: format!("unknown key \"{name}\" in {place}"), remedy, removed: None }
}

/// The place of `path` in the text: of the value, or of the nearest table that is there.
pub(super) fn locate(root: &DeTable<'_>, path: &Path) -> Option<Range<usize>> {
    let mut span = None;
    let mut table = Some(root);
    let mut array = None;
    for step in &path.0 {
        let value = match step {
            Step::Key(key) => table.and_then(|table| {
                table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
            }),
            Step::Index(index) => array.and_then(|array: &toml::de::DeArray<'_>| array.get(*index)),
        };
        let Some(value) = value else { break };
        span = Some(value.span());
        table = value.get_ref().as_table();
        array = value.get_ref().as_array();
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use serde::Serialize;

    fn names(keys: &[Key]) -> Vec<&'static str> {
        let mut names: Vec<_> = keys.iter().map(|key| key.0).collect();
        names.sort_unstable();
        names
    }

    /// The keys of a value in which every field is present.
    fn fields(value: impl Serialize) -> Vec<String> {
        let toml::Value::Table(table) = toml::Value::try_from(value).unwrap() else { panic!("not a table") };
        let mut names: Vec<_> = table.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn keys_are_those_of_the_shape() {
        let text = || Some(String::from("x"));
        let check = file::CheckTable {
            kind: "x".into(),
            path: text(),
            method: text(),
            host: text(),
            expect: text(),
            interval: text(),
            timeout: text(),
            rise: Some(1),
            fall: Some(1),
            port: Some(1),
        };
        assert_eq!(names(CHECK), fields(&check));
        let draining = file::Draining { until: text(), remove: true };
        assert_eq!(names(DRAINING), fields(&draining));
        let backend = file::Backend { address: "x".into(), weight: Some(1), draining: Some(draining) };
        assert_eq!(names(BACKEND), fields(&backend));
        let service = file::Service {
            name: "x".into(),
            listen: "x".into(),
            mode: text(),
            scheduler: text(),
            on_down: text(),
            announce: text(),
            idle_timeout: text(),
            tracking: text(),
            encap_checksum: text(),
            echo: Some(true),
            ring_size: Some(1),
            check: Some(file::Check::Table(check.clone())),
            backend: vec![backend],
        };
        assert_eq!(names(SERVICE), fields(&service));
        let defaults = file::Defaults {
            mode: text(),
            scheduler: text(),
            on_down: text(),
            announce: text(),
            idle_timeout: text(),
            tracking: text(),
            encap_checksum: text(),
            echo: Some(true),
            ring_size: Some(1),
            check: Some(file::Check::Table(check)),
        };
        assert_eq!(names(DEFAULTS), fields(&defaults));
        let interface = file::InterfaceTable { name: "x".into(), mode: text() };
        assert_eq!(names(INTERFACE), fields(&interface));
        let agent = file::Agent {
            interfaces: Some(vec![file::Interface::Table(interface)]),
            encap_source: Some(vec![]),
            metrics: text(),
        };
        assert_eq!(names(AGENT), fields(&agent));
        assert_eq!(names(FILE), fields(file::File { agent, defaults, service: vec![service] }));
    }
}
