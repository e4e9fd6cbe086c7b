//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

/// A condition that did not come true in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {} ms in vain for {description}", .timeout.as_millis())]
pub struct TimedOut {
    /// What was waited for.
    pub description: String,
    /// For how long.
    pub timeout: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks `condition` until it is true, less and less often. It is asked at least once, and once more at the end.
///
/// # Errors
///
/// It was never true within `timeout`.
pub fn until(
    description: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    let mut pauses = Pauses::new(timeout);
    while !condition() {
        std::thread::sleep(pauses.next(description)?);
    }
    Ok(())
}

/// As [`until`], for a condition that has to be awaited.
///
/// # Errors
///
/// It was never true within `timeout`.
pub async fn until_async(
    description: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<(), TimedOut> {
    let mut pauses = Pauses::new(timeout);
    while !condition().await {
        tokio::time::sleep(pauses.next(description)?).await;
    }
    Ok(())
}

struct Pauses {
    start: Instant,
    timeout: Duration,
    pause: Duration,
}

impl Pauses {
    fn new(timeout: Duration) -> Self {
        Self { start: Instant::now(), timeout, pause: FIRST_PAUSE }
    }

    fn next(&mut self, description: &str) -> Result<Duration, TimedOut> {
        let left = self.timeout.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return Err(TimedOut { description: description.to_owned(), timeout: self.timeout });
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_true() {
        let mut asked = 0;
        let third = || {
            asked += 1;
            asked == 3
        };
        until("the third time", Duration::from_secs(60), third).unwrap();
        assert_eq!(asked, 3);
    }

    #[test]
    fn asks_once_without_time_and_says_what_was_missing() {
        until("nothing", Duration::ZERO, || true).unwrap();
        let error = until("a miracle", Duration::from_millis(5), || false).unwrap_err();
        assert_eq!(error.to_string(), "waited 5 ms in vain for a miracle");
    }

    #[tokio::test]
    async fn awaits() {
        let mut asked = 0;
        let second = async || {
            asked += 1;
            tokio::task::yield_now().await;
            asked == 2
        };
        until_async("the second time", Duration::from_secs(60), second).await.unwrap();
        assert_eq!(asked, 2);
    }
}
