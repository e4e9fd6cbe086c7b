//! The shape of a configuration, as serde sees it: TOML file, JSON body and state file alike.
//!
//! Words, durations and addresses are texts here, so that a wrong one is reported by the rules together with everything
//! else that is wrong, not by the parser alone. [`mod@super::check`] knows what they mean.

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    /// What concerns the agent.
    #[serde(skip_serializing_if = "is_default")]
    pub agent: Agent,
    /// What services inherit.
    #[serde(skip_serializing_if = "is_default")]
    pub defaults: Defaults,
    /// The services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<Service>,
}

/// `[agent]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Agent {
    /// Interfaces that are attached. Unsaid, those that are attached stay; an empty list attaches none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    /// Prefixes that outer headers come from, one a family: `"198.18.0.0/15"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encap_source: Option<Vec<String>>,
    /// Address and port of the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// An interface: `"eth0"`, or `{ name = "eth0", mode = "generic" }`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Interface {
    /// Its name; the mode is `auto`.
    Name(String),
    /// Name and mode.
    Table(InterfaceTable),
}

/// An interface with its mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct InterfaceTable {
    /// Its name.
    pub name: String,
    /// `auto`, `native` or `generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// `[defaults]`: what a service has if it does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Defaults {
    /// See [`Service::mode`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// See [`Service::scheduler`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// See [`Service::on_down`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_down: Option<String>,
    /// See [`Service::announce`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// See [`Service::idle_timeout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// See [`Service::tracking`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    /// See [`Service::encap_checksum`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encap_checksum: Option<String>,
    /// See [`Service::echo`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// See [`Service::ring_size`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_size: Option<i64>,
    /// See [`Service::check`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// `[[service]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it listens: `tcp://192.0.2.10:443`.
    pub listen: String,
    /// `nat`, `l2`, `ipip` or `gue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `maglev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// `rehash` or `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_down: Option<String>,
    /// `interface` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// A duration: `15m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// `adaptive`, `always` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    /// `none` or `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encap_checksum: Option<String>,
    /// Whether pings of its address are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// One of [`lb_common::maglev::SIZES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_size: Option<i64>,
    /// How backends are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// The backends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend: Vec<Backend>,
}

/// A check: a table, or a line as [`super::spec`] reads it (`"none"` switches an inherited check off).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Check {
    /// One line.
    Spec(String),
    /// `[service.check]`.
    Table(CheckTable),
}

/// `[service.check]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckTable {
    /// `tcp` or `http`.
    pub kind: String,
    /// Path of an HTTP check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `GET` or `HEAD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `Host` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Status codes: `200` or `200-399`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// A duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// A duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Successes in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<i64>,
    /// Failures in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<i64>,
    /// Another port than the backend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// `[[service.backend]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Backend {
    /// `10.0.0.11:8443`; without a port, the service's.
    pub address: String,
    /// Its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Present while it takes no new flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
}

/// `draining = {}`: until the operator says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Draining {
    /// When it ends whatever is left: `2026-01-31T12:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The backend is removed when it ends.
    #[serde(skip_serializing_if = "is_default")]
    pub remove: bool,
}

/// Reads a text or a table. By hand: serde's untagged enums answer a misspelt key with "did not match any variant".
macro_rules! text_or_table {
    ($type:ident, $text:ident, $table:ty, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;

                impl<'de> Visitor<'de> for Either {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        Ok($type::$text(text.to_owned()))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        <$table>::deserialize(MapAccessDeserializer::new(map)).map($type::Table)
                    }
                }

                deserializer.deserialize_any(Either)
            }
        }
    };
}
text_or_table!(Check, Spec, CheckTable, "a table or a text like \"http:/healthz,interval=2s\"");
text_or_table!(Interface, Name, InterfaceTable, "the name of an interface, or a table with name and mode");

/// The options that services and defaults share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) mode: Option<&'a str>,
    pub(super) scheduler: Option<&'a str>,
    pub(super) on_down: Option<&'a str>,
    pub(super) announce: Option<&'a str>,
    pub(super) idle_timeout: Option<&'a str>,
    pub(super) tracking: Option<&'a str>,
    pub(super) encap_checksum: Option<&'a str>,
    pub(super) echo: Option<bool>,
    pub(super) ring_size: Option<i64>,
    pub(super) check: Option<&'a Check>,
}

macro_rules! options {
    ($type:ty) => {
        impl $type {
            /// Its options.
            pub(super) fn options(&self) -> Options<'_> {
                Options {
                    mode: self.mode.as_deref(),
                    scheduler: self.scheduler.as_deref(),
                    on_down: self.on_down.as_deref(),
                    announce: self.announce.as_deref(),
                    idle_timeout: self.idle_timeout.as_deref(),
                    tracking: self.tracking.as_deref(),
                    encap_checksum: self.encap_checksum.as_deref(),
                    echo: self.echo,
                    ring_size: self.ring_size,
                    check: self.check.as_ref(),
                }
            }
        }
    };
}
options!(Defaults);
options!(Service);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_the_files_shape() {
        let body = r#"{"listen": "tcp://192.0.2.10:80", "idle-timeout": "1m", "check": "tcp", "backend": [{"address": "10.0.0.1"}]}"#;
        let service: Service = serde_json::from_str(body).unwrap();
        assert_eq!(service.idle_timeout.as_deref(), Some("1m"));
        assert_eq!(service.check, Some(Check::Spec("tcp".into())));
        assert_eq!(service.backend[0].address, "10.0.0.1");
    }

    #[test]
    fn misspelt_keys_of_bodies_are_named() {
        for (body, key) in [
            (r#"{"service": [{"nmae": "web"}]}"#, "nmae"),
            (r#"{"service": [{"check": {"kind": "tcp", "intervall": "2s"}}]}"#, "intervall"),
            (r#"{"agent": {"interfaces": [{"name": "eth0", "moed": "native"}]}}"#, "moed"),
        ] {
            let error = serde_json::from_str::<File>(body).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
        let error =
            serde_json::from_str::<File>(r#"{"agent": {"interfaces": [1]}}"#).unwrap_err().to_string();
        assert!(error.contains("expected the name of an interface"), "{error}");
    }
}
