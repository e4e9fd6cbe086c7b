//! Packets that the program drops, told one by one while somebody wants to know (`lb agent -v`).
//!
//! The program logs three numbers through `aya-log`; here they become a sentence. Loaded without
//! [`super::Options::log_drops`] the program has no code for it.

use aya::programs::Xdp;
use aya_log::EbpfLogger;
use lb_common::reason::Reason;
use log::{Log, Metadata, Record};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Dataplane;

/// The logs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DropsError {
    /// The program was loaded without them, or the kernel refuses.
    #[error("the program's log cannot be opened")]
    Open(#[from] aya_log::Error),
    /// The program cannot be looked at.
    #[error("the program cannot be looked at")]
    Program(#[from] Box<aya::programs::ProgramError>),
    /// The runtime cannot wait for it.
    #[error("cannot wait for the program's log")]
    Wait(#[from] io::Error),
}

/// Writes a line for each packet that the program drops.
#[derive(Debug)]
struct Sentences;

impl Log for Sentences {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        match sentence(&text) {
            Some(sentence) => tracing::debug!("{sentence}"),
            None => tracing::debug!("the program says: {text}"),
        }
    }

    fn flush(&self) {}
}

/// The sentence for the three numbers of a dropped packet: reason, service, interface.
fn sentence(text: &str) -> Option<String> {
    let mut numbers = text.split(' ').map(str::parse::<u32>);
    let (reason, service, ifindex) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let reason = Reason::from_number(reason)?;
    let interface = crate::net::name(ifindex).unwrap_or_else(|| format!("interface {ifindex}"));
    Some(format!(
        "dropped a packet of service {service} on {interface}: {}: {}",
        reason.as_str(),
        reason.describe().trim()
    ))
}

/// Reads the logs until they fail.
///
/// # Errors
/// The program was loaded without logs, or they cannot be waited for.
pub async fn follow(program: u32) -> Result<(), DropsError> {
    let logger = EbpfLogger::init_from_id_with_logger(program, Sentences)?;
    // SAFETY: the logger owns its file descriptor and keeps it open until it is dropped, with the registration.
    let mut logs =
        unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.map_err(io::Error::from)?;
    loop {
        let mut ready = logs.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

impl Dataplane {
    /// Id of the program that balances.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn program_id(&self) -> Result<u32, DropsError> {
        let balance: &Xdp = &self.balance;
        Ok(balance.info().map_err(Box::new)?.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_a_sentence() {
        let said = sentence("13 4 999999").unwrap();
        assert!(said.contains("service 4 on interface 999999: no-backend"), "{said}");
        assert_eq!(sentence("99 4 1"), None);
        assert_eq!(sentence("hello"), None);
    }
}
