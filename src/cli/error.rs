//! The error that ends a command, and the exit codes. output.rs prints it.

use serde_json::{Value, json};

/// How the program ends: the one table of exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The network, the API or a file failed.
    Failed = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// A login is still waiting for its user (`auth:login --finish --no-wait`).
    Pending = 3,
    /// Not signed in, or Postiz refused the credentials.
    NotSignedIn = 4,
    /// A request was sent, and its outcome is not known.
    Unknown = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The number that the operating system sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A failure for its user: what happened, to which thing, and what to do now.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    /// One word for programs, in the field `error` of `--json` results and events.
    pub(crate) word: String,
    /// Empty when nothing is to be printed, since the reader of stdout has gone.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What the auth server's log calls the login that failed or, where none has started, the request.
    pub(crate) reference: Option<String>,
    /// The answer of Postiz or the auth server, for `--json-errors`.
    pub(crate) answered: Option<Box<Answered>>,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The name or ID of the channel that it is about.
    pub(crate) channel: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl CliError {
    fn new(exit: Exit, word: &str, message: String) -> CliError {
        CliError {
            exit,
            word: word.to_owned(),
            message,
            hint: None,
            reference: None,
            answered: None,
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Failed, "failed", message.into())
    }

    pub(crate) fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, "usage", message.into())
    }

    pub(crate) fn not_signed_in() -> CliError {
        let message = "not signed in".to_owned();
        CliError::new(Exit::NotSignedIn, "not_signed_in", message).hint(
            "run `postiz auth:login`, or set POSTIZ_API_KEY to an API key from Postiz's settings",
        )
    }

    pub(crate) fn refused(message: impl Into<String>) -> CliError {
        CliError::new(Exit::NotSignedIn, "refused", message.into())
    }

    pub(crate) fn interrupted() -> CliError {
        CliError::new(Exit::Interrupted, "interrupted", "interrupted".to_owned())
    }

    pub(crate) fn unknown(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Unknown, "outcome_unknown", message.into())
    }

    /// The reader of stdout (`head`, a closed pager) has gone. That ends the program as a success, without a word.
    pub(crate) fn reader_gone() -> CliError {
        CliError::new(Exit::Done, "", String::new())
    }

    /// The error for programs (`--json-errors`).
    pub(crate) fn as_json(&self) -> Value {
        let answered = self.answered.as_deref();
        let mut json = json!({
            "error": self.message,
            "status": answered.map(|answered| answered.status),
            "channel": answered.and_then(|answered| answered.channel.as_deref()),
            "body": answered.map(Answered::body_as_json),
        });
        if let Some(reference) = &self.reference {
            json["reference"] = reference.as_str().into();
        }
        json
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// Names what the auth server's operator looks for in the log; not for a login that its user interrupted.
    pub(crate) fn reference(mut self, reference: String) -> CliError {
        if self.exit != Exit::Interrupted {
            self.reference = Some(reference);
        }
        self
    }

    /// Adds the answer that caused the failure; none caused an interruption.
    pub(crate) fn answered(mut self, answered: Option<Answered>) -> CliError {
        if self.exit != Exit::Interrupted {
            self.answered = answered.map(Box::new);
        }
        self
    }

    /// Puts before the message what the failure is about.
    pub(crate) fn about(mut self, what: &str) -> CliError {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Replaces the word for programs.
    pub(crate) fn word(mut self, word: impl Into<String>) -> CliError {
        self.word = word.into();
        self
    }
}

impl Answered {
    /// JSON as it came; any other body as text.
    fn body_as_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&self.body);
            let cut: String = text.chars().take(BODY_CHARACTERS_MAX).collect();
            cut.into()
        })
    }
}

/// The hint of a login that ended without a token.
pub(crate) const RUN_AGAIN: &str = "run `postiz auth:login` again";

/// How much of a body that is not JSON a program gets.
const BODY_CHARACTERS_MAX: usize = 2_000;
