//! One check of the shape → one of the model.

use super::super::file::{self, CheckTable};
use super::super::finding::{Findings, Path};
use super::super::spec;
use super::Judge;
use crate::model::{Check, CheckKind, HttpMethod, InvalidText};
use std::time::Duration;

/// Shortest and longest interval and timeout of a check.
const PROBE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(1));
/// Longest path and host of a check.
const MAX_TEXT: usize = 1024;
/// Most results in a row that may be asked for.
const MAX_STREAK: i64 = 1000;

/// Judges a check; the outer `None` means that it is wrong.
pub(super) fn judge(
    subject: &str,
    shape: &file::Check,
    path: &Path,
    out: &mut Findings,
) -> Option<Option<Check>> {
    let parsed;
    let table = match shape {
        file::Check::Table(table) => table,
        file::Check::Spec(text) => match spec::parse(text) {
            Ok(Some(table)) => {
                parsed = table;
                &parsed
            }
            Ok(None) => return Some(None),
            Err(InvalidText { message, remedy }) => {
                out.invalid(path.clone(), format!("{subject}: {message}"), remedy);
                return None;
            }
        },
    };
    let before = out.0.len();
    let mut judge = Judge { subject, path, out };
    let kind = check_kind(&mut judge, table);
    let interval =
        judge.duration("interval", table.interval.as_deref(), PROBE).unwrap_or(Check::DEFAULT_INTERVAL);
    let timeout =
        judge.duration("timeout", table.timeout.as_deref(), PROBE).unwrap_or(Check::DEFAULT_TIMEOUT);
    let rise = judge.number("rise", table.rise, 1, MAX_STREAK).unwrap_or(Check::DEFAULT_RISE);
    let fall = judge.number("fall", table.fall, 1, MAX_STREAK).unwrap_or(Check::DEFAULT_FALL);
    let port = judge.number("port", table.port, 1, 65_535).and_then(|port| u16::try_from(port).ok());
    if out.0.len() > before {
        return None;
    }
    if timeout >= interval {
        out.warn(
            path.key("timeout"),
            format!(
                "{subject}: a check may take {}, longer than the {} between two",
                humantime::format_duration(timeout),
                humantime::format_duration(interval)
            ),
            "write a timeout below the interval; else a backend that hangs is noticed late",
        );
    }
    Some(Some(Check { kind: kind?, interval, timeout, rise, fall, port }))
}

fn check_kind(judge: &mut Judge<'_>, table: &CheckTable) -> Option<CheckKind> {
    const LATER: [&str; 6] = ["https", "udp", "dns", "icmp", "grpc", "exec"];
    match table.kind.as_str() {
        "tcp" => {
            let foreign = [
                ("path", table.path.is_some()),
                ("method", table.method.is_some()),
                ("host", table.host.is_some()),
                ("expect", table.expect.is_some()),
            ];
            for (key, _) in foreign.into_iter().filter(|(_, present)| *present) {
                judge.invalid(
                    key,
                    format!("a tcp check has no {key}"),
                    format!("remove {key}, or write kind = \"http\""),
                );
            }
            Some(CheckKind::Tcp)
        }
        "http" => {
            let method = judge.word("method", table.method.as_deref()).unwrap_or(HttpMethod::Get);
            let path = table.path.as_deref().unwrap_or("/");
            // Anything else could end the request line or the header, and begin another.
            let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
            if !path.starts_with('/') || !visible(path) || path.contains('#') || path.len() > MAX_TEXT {
                judge.invalid(
                    "path",
                    format!("check path {path:?} is not a path"),
                    "write one that starts with / and has no spaces, control characters or #; percent-encode others",
                );
            }
            let host = table.host.clone();
            let in_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
            if let Some(host) = host
                .as_deref()
                .filter(|host| host.is_empty() || host.len() > MAX_TEXT || !host.bytes().all(in_a_host))
            {
                judge.invalid(
                    "host",
                    format!("check host {host:?} is not a host"),
                    "write a name or address, with a port if needed: example.org:8080",
                );
            }
            let expect = match table.expect.as_deref().map(expect) {
                None => Some(Check::DEFAULT_EXPECT),
                Some(result) => judge.take("expect", result),
            };
            Some(CheckKind::Http { method, path: path.to_owned(), host, expect: expect? })
        }
        "" => {
            judge.invalid("kind", "the check has no kind", "write kind = \"tcp\" or kind = \"http\"");
            None
        }
        later if LATER.contains(&later) => {
            judge.invalid(
                "kind",
                format!("check kind \"{later}\" is not available in this version"),
                "write tcp or http",
            );
            None
        }
        other => {
            judge.invalid("kind", format!("check kind \"{other}\" is unknown"), "write tcp or http");
            None
        }
    }
}

fn expect(text: &str) -> Result<(u16, u16), InvalidText> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if (100..=599).contains(&first) && first <= last && last <= 599 => {
            Ok((first, last))
        }
        _ => Err(InvalidText::new(
            format!("expect \"{text}\" is not a range of status codes"),
            "write a code or a range from 100 to 599, like 200 or 200-399",
        )),
    }
}
