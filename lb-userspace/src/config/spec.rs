//! What the command line takes in one word: a check (`tcp`, `http:/healthz,interval=2s,rise=2`, `none`), and a backend
//! (`10.0.0.11:8443,weight=50`).
//!
//! Only the shape: what the values must be is judged where tables are judged too. A path with a comma needs the table.

use super::file::{Backend, CheckTable};
use crate::model::{Check, CheckKind, HttpMethod, InvalidText, closest};

/// Keys that may follow.
const KEYS: [&str; 8] = ["interval", "timeout", "rise", "fall", "port", "host", "expect", "method"];

/// Reads a line; `None` is `none`.
///
/// # Errors
///
/// If it has another shape, or a key that no check has.
pub fn parse(text: &str) -> Result<Option<CheckTable>, InvalidText> {
    let mut parts = text.split(',');
    let head = parts.next().unwrap_or_default().trim();
    if head == "none" {
        return match parts.next() {
            None => Ok(None),
            Some(_) => {
                Err(InvalidText::new("check \"none\" takes no options", "write none, or a kind: tcp, http"))
            }
        };
    }
    let mut table = CheckTable::default();
    match head.split_once(':') {
        None => table.kind = head.to_owned(),
        Some((kind, path)) => {
            table.kind = kind.to_owned();
            table.path = Some(path.to_owned());
        }
    }
    for part in parts {
        let Some((key, value)) = part.trim().split_once('=') else {
            return Err(InvalidText::new(
                format!("check option \"{part}\" has no value"),
                "write options like interval=2s; a path with a comma needs a [service.check] table",
            ));
        };
        set(&mut table, key.trim(), value.trim())?;
    }
    Ok(Some(table))
}

fn set(table: &mut CheckTable, key: &str, value: &str) -> Result<(), InvalidText> {
    let slot = match key {
        "interval" => &mut table.interval,
        "timeout" => &mut table.timeout,
        "host" => &mut table.host,
        "expect" => &mut table.expect,
        "method" => &mut table.method,
        "rise" | "fall" | "port" => {
            let number = value.parse().map_err(|_| {
                InvalidText::new(
                    format!("check option {key}=\"{value}\" is not a number"),
                    "write a whole number",
                )
            })?;
            let slot = match key {
                "rise" => &mut table.rise,
                "fall" => &mut table.fall,
                _ => &mut table.port,
            };
            return once(slot, key, number);
        }
        _ => {
            let remedy = match closest(key, KEYS) {
                Some(known) => format!("did you mean \"{known}\"? One of: {}", KEYS.join(", ")),
                None => format!("write one of: {}", KEYS.join(", ")),
            };
            return Err(InvalidText::new(format!("check option \"{key}\" is unknown"), remedy));
        }
    };
    once(slot, key, value.to_owned())
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), InvalidText> {
    if slot.replace(value).is_some() {
        return Err(InvalidText::new(format!("option \"{key}\" is given twice"), "write it once"));
    }
    Ok(())
}

/// Reads a backend.
///
/// # Errors
///
/// If something else than a weight follows the address.
pub fn backend(text: &str) -> Result<Backend, InvalidText> {
    let (address, options) = text.split_once(',').unwrap_or((text, ""));
    let mut backend = Backend { address: address.trim().to_owned(), ..Backend::default() };
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let weight = option.strip_prefix("weight=").and_then(|weight| weight.parse().ok());
        let Some(weight) = weight else {
            return Err(InvalidText::new(
                format!("backend option \"{option}\" is unknown"),
                "write ADDRESS[:PORT][,weight=NUMBER]",
            ));
        };
        once(&mut backend.weight, "weight", weight)?;
    }
    Ok(backend)
}

/// Writes a check as a line; only what differs from the defaults.
pub fn format(check: &Check) -> String {
    let table = super::export::check_table(check);
    let mut line = table.kind;
    if let Some(path) = table.path {
        line.push(':');
        line.push_str(&path);
    }
    let numbers = [("rise", table.rise), ("fall", table.fall), ("port", table.port)];
    let texts = [
        ("method", table.method),
        ("host", table.host),
        ("expect", table.expect),
        ("interval", table.interval),
        ("timeout", table.timeout),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let numbers = numbers.into_iter().filter_map(|(key, value)| Some((key, value?.to_string())));
    for (key, value) in texts.chain(numbers) {
        line.push_str(&format!(",{key}={value}"));
    }
    line
}

impl CheckKind {
    /// `tcp` or `http`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http { .. } => "http",
        }
    }

    /// An HTTP check of a path, everything else as usual.
    pub fn http(path: impl Into<String>) -> Self {
        Self::Http { method: HttpMethod::Get, path: path.into(), host: None, expect: Check::DEFAULT_EXPECT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_manual_shows() {
        assert_eq!(parse("none"), Ok(None));
        assert_eq!(parse("tcp").unwrap().unwrap().kind, "tcp");
        let table =
            parse("http:/healthz,interval=2s,timeout=1s,rise=2,fall=3,port=8080,host=example,expect=200-399");
        assert_eq!(
            table.unwrap().unwrap(),
            CheckTable {
                kind: "http".into(),
                path: Some("/healthz".into()),
                method: None,
                host: Some("example".into()),
                expect: Some("200-399".into()),
                interval: Some("2s".into()),
                timeout: Some("1s".into()),
                rise: Some(2),
                fall: Some(3),
                port: Some(8080),
            }
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, what) in [
            ("http:/,intreval=2s", "did you mean \"interval\""),
            ("http:/,rise=two", "not a number"),
            ("http:/,rise", "has no value"),
            ("http:/,rise=1,rise=2", "given twice"),
            ("none,rise=2", "takes no options"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
    #[test]
    fn reads_backends() {
        let read = |text| backend(text).map(|backend| (backend.address, backend.weight));
        assert_eq!(read("10.0.0.1:80,weight=5"), Ok(("10.0.0.1:80".into(), Some(5))));
        assert_eq!(read("2001:db8::1"), Ok(("2001:db8::1".into(), None)));
        for text in ["10.0.0.1,wieght=5", "10.0.0.1,weight=much", "10.0.0.1,weight=1,weight=1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
