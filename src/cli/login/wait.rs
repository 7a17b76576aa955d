//! Schedules the polls of a login: the pauses between them, retries after failures, and when to give up. auth_server.rs
//! polls. Clock and poll are arguments, so that unit tests simulate a login of 15 minutes.

use std::time::Duration;

use crate::cli::context::{Clock, sleep};
use crate::cli::credentials::Stored;
use crate::cli::error::{CliError, RUN_AGAIN};
use crate::cli::login::auth_server::Poll;
use crate::shared::wire::SLOW_DOWN_S;

pub(super) struct Wait {
    /// The pause that the server asks for; `slow_down` raises it for good.
    pub(super) interval: Duration,
    /// How many polls in a row got no answer.
    failures: u32,
    /// When the codes expire, by our clock.
    deadline: Duration,
    /// When to give up on a server that answers `authorization_pending` past the deadline.
    give_up: Duration,
    /// Why the last poll got no answer, if it got none.
    pub(super) trouble: Option<String>,
    pub(super) pause: Duration,
}

impl Wait {
    /// Begins now, with a pause before the first poll.
    pub(super) fn new(now: Duration, interval: Duration, expires_in: Duration) -> Wait {
        Wait {
            interval,
            failures: 0,
            deadline: now + expires_in,
            // A clock that runs 30 % fast shows the end of the codes' lifetime when 77 % of it has passed. The login must
            // not end then: the server decides when its codes expire.
            give_up: now + expires_in.mul_f64(1.0 + 2.0 * CLOCK_ERROR),
            trouble: None,
            pause: Wait::usual_pause(interval),
        }
    }

    /// The pause before the first poll, and between polls that get answers.
    ///
    /// Clocks of virtual machines run up to 30 % fast, and no poll may come sooner than the interval (RFC 8628 §3.5): a
    /// strict server would answer each with `slow_down`.
    pub(super) fn usual_pause(interval: Duration) -> Duration {
        interval.mul_f64(1.0 + CLOCK_ERROR)
    }

    /// The time until the codes expire.
    pub(super) fn left(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }

    /// Notes the result of a poll: the login when it is granted, an error when it is over, `None` when it is pending.
    pub(super) fn take(&mut self, poll: Poll, now: Duration) -> Result<Option<Stored>, CliError> {
        let had_no_answer = self.trouble.is_some();
        match poll {
            Poll::Granted(stored) => return Ok(Some(stored)),
            Poll::Pending | Poll::SlowDown if now >= self.give_up => return Err(expired(None)),
            Poll::Pending => self.answered(),
            Poll::SlowDown => {
                self.interval += Duration::from_secs(SLOW_DOWN_S);
                self.answered();
            }
            Poll::Unanswered { why, .. } if now >= self.deadline => {
                return Err(expired(Some(&why)));
            }
            Poll::Unanswered { why, retry_after } => {
                self.failed(why, retry_after.unwrap_or_default())
            }
            Poll::Expired => return Err(expired(None)),
            Poll::Denied => {
                let message = "the login was refused in the browser";
                return Err(CliError::failed(message).word("access_denied"));
            }
            Poll::Unknown if had_no_answer => {
                let message =
                    "the login was approved, but the answer with the token was lost on its way";
                return Err(ended("answer_lost", message));
            }
            Poll::Unknown => {
                let message = "the auth server no longer knows this login";
                return Err(ended("invalid_device_code", message));
            }
            Poll::NoToken(why) => {
                let message = format!("the auth server said the login is done, but {why}");
                return Err(ended("no_token", message).hint(
                    "run `postiz auth:login` again; if that does not help, tell the administrator of the auth server",
                ));
            }
            Poll::Refused { error, description } => {
                let reason = match description.as_str() {
                    "" => error.clone(),
                    _ => format!("{description} ({error})"),
                };
                let message = format!("the auth server ended the login: {reason}");
                return Err(ended(&error, message));
            }
        }
        Ok(None)
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.trouble = None;
        self.pause = Wait::usual_pause(self.interval);
    }

    /// Backs off after a poll without an answer (RFC 8628 §3.5). The pause is never shorter than the interval, which
    /// `slow_down` may have raised past the longest backoff.
    fn failed(&mut self, why: String, retry_after: Duration) {
        self.failures = (self.failures + 1).min(10);
        self.trouble = Some(why);
        let usual = Wait::usual_pause(self.interval);
        let doubled = usual * 2_u32.pow(self.failures);
        self.pause = doubled.min(FAILURE_PAUSE_MAX).max(usual).max(retry_after);
    }
}

/// Polls until the login is granted or over. Calls `tick` about once a second with the time until the codes expire.
pub(super) fn wait_for_token(
    clock: &dyn Clock,
    wait: &mut Wait,
    mut poll: impl FnMut() -> Poll,
    mut tick: impl FnMut(Duration),
) -> Result<Stored, CliError> {
    loop {
        let poll_at = clock.now() + wait.pause;
        while clock.now() < poll_at {
            let now = clock.now();
            tick(wait.left(now));
            sleep(clock, TICK.min(poll_at - now))?;
        }
        if let Some(stored) = wait.take(poll(), clock.now())? {
            return Ok(stored);
        }
        // A server's Retry-After may be long; there is a last poll when the codes expire.
        let until_deadline = wait.left(clock.now()).max(Wait::usual_pause(wait.interval));
        wait.pause = wait.pause.min(until_deadline);
    }
}

fn expired(trouble: Option<&str>) -> CliError {
    let message = match trouble {
        None => "the code expired before the login was confirmed".to_owned(),
        Some(why) => format!("the code expired, and the auth server did not answer: {why}"),
    };
    ended("expired_token", message)
}

fn ended(word: &str, message: impl Into<String>) -> CliError {
    CliError::failed(message).word(word).hint(RUN_AGAIN)
}

/// The largest error of a clock, as a part of the time that it measures.
const CLOCK_ERROR: f64 = 0.3;

/// Longest backoff, unless the interval is longer.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(30);

const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::secret::Secret;
    use std::cell::{Cell, RefCell};
    use std::time::SystemTime;

    /// A clock that runs `rate` times as fast as true time, which passes only during sleeps.
    struct SimulatedClock {
        true_time: Cell<f64>,
        rate: f64,
    }

    impl Clock for SimulatedClock {
        fn now(&self) -> Duration {
            Duration::from_secs_f64(self.true_time.get() * self.rate)
        }
        fn date(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.now()
        }
        fn sleep(&self, time: Duration) -> bool {
            self.true_time
                .set(self.true_time.get() + time.as_secs_f64() / self.rate);
            true
        }
        fn defer_interrupt(&self, work: &mut dyn FnMut()) {
            work();
        }
    }

    struct Outcome {
        result: Result<Stored, CliError>,
        /// True times of the polls.
        polls: Vec<f64>,
    }

    impl Outcome {
        fn gaps(&self) -> Vec<f64> {
            let starts = [&[0.0], &self.polls[..]].concat();
            starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
        }

        fn word(&self) -> &str {
            self.result.as_ref().err().map_or("", |error| &error.word)
        }
    }

    /// Runs a whole login against `server`, which gets the true time and the number of the poll.
    fn login(rate: f64, interval: u64, server: impl Fn(f64, usize) -> Poll) -> Outcome {
        let clock = SimulatedClock {
            true_time: Cell::new(0.0),
            rate,
        };
        let polls = RefCell::new(Vec::new());
        let interval = Duration::from_secs(interval);
        let mut wait = Wait::new(clock.now(), interval, Duration::from_secs(900));
        let poll = || {
            let now = clock.true_time.get();
            polls.borrow_mut().push(now);
            server(now, polls.borrow().len())
        };
        let result = wait_for_token(&clock, &mut wait, poll, |_| {});
        Outcome {
            result,
            polls: polls.into_inner(),
        }
    }

    fn granted() -> Poll {
        Poll::Granted(Stored {
            access_token: Secret::new("pos_a".to_owned()),
            api_url: None,
            organization_id: None,
        })
    }

    fn unanswered() -> Poll {
        Poll::Unanswered {
            why: "connection refused".to_owned(),
            retry_after: None,
        }
    }

    fn rates() -> impl Iterator<Item = f64> {
        (0..=600).map(|step| 0.7 + f64::from(step) / 1000.0)
    }

    /// The clocks run from 30 % slow to 30 % fast.
    #[test]
    fn polls_never_come_sooner_than_the_interval() {
        for rate in rates() {
            let outcome = login(rate, 5, |now, _| {
                if now > 200.0 {
                    granted()
                } else {
                    Poll::Pending
                }
            });
            assert!(outcome.result.is_ok(), "{rate}");
            for gap in outcome.gaps() {
                assert!((4.999_999..10.0).contains(&gap), "{rate}: {gap}");
            }
        }
    }

    /// Whatever the clock, an approval a minute before the end arrives, and the server decides when the codes expire.
    #[test]
    fn wait_does_not_end_before_the_codes_expire() {
        for rate in rates() {
            let late = login(rate, 5, |now, _| {
                if now > 840.0 {
                    granted()
                } else {
                    Poll::Pending
                }
            });
            assert!(late.result.is_ok(), "{rate}");
            let never = login(rate, 5, |now, _| {
                if now > 900.0 {
                    Poll::Expired
                } else {
                    Poll::Pending
                }
            });
            assert_eq!(never.word(), "expired_token");
            assert!(never.polls.last().unwrap() > &900.0);
        }
    }

    #[test]
    fn wait_ends_although_the_server_never_says_expired() {
        let outcome = login(1.0, 5, |_, _| Poll::Pending);
        assert_eq!(outcome.word(), "expired_token");
        assert!((1440.0..1460.0).contains(outcome.polls.last().unwrap()));
    }

    /// One slow_down slows this and all later polls. A strict server sends none, even with the fastest clock.
    #[test]
    fn slow_down_holds_for_all_later_polls() {
        let outcome = login(1.0, 5, |_, poll| match poll {
            1 | 3 => Poll::SlowDown,
            6 => granted(),
            _ => Poll::Pending,
        });
        assert_eq!(outcome.gaps(), [6.5, 13.0, 13.0, 19.5, 19.5, 19.5]);
        for rate in rates() {
            // This one wants 5 s, and after each complaint 5 s more, measured by true time.
            let (wanted, last) = (Cell::new(5.0), Cell::new(0.0));
            let outcome = login(rate, 5, |now, _| {
                let gap = now - last.replace(now);
                if gap < wanted.get() - 0.001 {
                    wanted.set(wanted.get() + 5.0);
                    return Poll::SlowDown;
                }
                if now > 100.0 {
                    granted()
                } else {
                    Poll::Pending
                }
            });
            assert!(outcome.result.is_ok() && wanted.get() == 5.0, "{rate}");
        }
    }

    /// Without answers, polls back off up to 30 s, and the login still succeeds.
    #[test]
    fn failed_polls_back_off_and_recover() {
        let outcome = login(
            1.0,
            5,
            |_, poll| if poll < 6 { unanswered() } else { granted() },
        );
        assert_eq!(outcome.gaps(), [6.5, 13.0, 26.0, 30.0, 30.0, 30.0]);
        assert!(outcome.result.is_ok());
        // One answer, and the pace is the usual one again.
        let outcome = login(1.0, 5, |_, poll| match poll {
            1 | 2 => unanswered(),
            3 | 4 => Poll::Pending,
            _ => granted(),
        });
        assert_eq!(outcome.gaps(), [6.5, 13.0, 26.0, 6.5, 6.5]);
    }

    /// An interval that slow_down raised past the longest backoff stays.
    #[test]
    fn failure_never_makes_polls_faster() {
        let outcome = login(1.0, 60, |_, poll| match poll {
            1 => Poll::SlowDown,
            2 | 3 => unanswered(),
            _ => granted(),
        });
        assert_eq!(outcome.gaps(), [78.0, 84.5, 84.5, 84.5]);
    }

    /// Retry-After sets the pause, but there is a last poll when the codes expire.
    #[test]
    fn retry_after_sets_the_pause() {
        let busy = |seconds| Poll::Unanswered {
            why: "HTTP 503".to_owned(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let outcome = login(
            1.0,
            5,
            |_, poll| if poll == 1 { busy(100) } else { granted() },
        );
        assert_eq!(outcome.gaps(), [6.5, 100.0]);
        let outcome = login(
            1.0,
            5,
            |_, poll| if poll == 1 { busy(86_400) } else { granted() },
        );
        assert_eq!(outcome.gaps(), [6.5, 893.5]);
    }

    #[test]
    fn login_without_answers_ends_with_the_codes() {
        let outcome = login(1.0, 5, |_, _| unanswered());
        assert_eq!(outcome.word(), "expired_token");
        assert!(
            outcome
                .result
                .err()
                .unwrap()
                .message
                .contains("connection refused")
        );
        assert!((900.0..931.0).contains(outcome.polls.last().unwrap()));
    }

    /// Each end of a login has its own word.
    #[test]
    fn no_poll_follows_the_end() {
        type End = fn() -> Poll;
        let ends: [(End, &str); 5] = [
            (|| Poll::Denied, "access_denied"),
            (|| Poll::Expired, "expired_token"),
            (|| Poll::Unknown, "invalid_device_code"),
            (|| Poll::NoToken("it sent none".to_owned()), "no_token"),
            (
                || Poll::Refused {
                    error: "invalid_client".to_owned(),
                    description: String::new(),
                },
                "invalid_client",
            ),
        ];
        for (end, word) in ends {
            let outcome = login(
                1.0,
                5,
                |_, poll| if poll == 2 { end() } else { Poll::Pending },
            );
            assert_eq!((outcome.word(), outcome.polls.len()), (word, 2));
        }
    }

    #[test]
    fn token_in_an_answer_that_did_not_arrive_has_its_own_word() {
        let outcome = login(1.0, 5, |_, poll| {
            if poll == 1 {
                unanswered()
            } else {
                Poll::Unknown
            }
        });
        assert_eq!(outcome.word(), "answer_lost");
        let outcome = login(1.0, 5, |_, poll| match poll {
            1 => unanswered(),
            2 => Poll::Pending,
            _ => Poll::Unknown,
        });
        assert_eq!(outcome.word(), "invalid_device_code");
    }
}
