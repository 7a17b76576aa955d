//! What can go wrong for the user, and the exit code each kind ends in. Printing it is output.rs.

use serde_json::{Value, json};

/// How the program ends. This is the one table of exit codes.
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
    /// A request was sent, and whether it was done is not known.
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

/// A failure as its user reads it: what happened, to which thing, and what to do now.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    /// One word for programs, in the `error` field of `--json` answers.
    pub(crate) word: String,
    /// Empty when there is nobody to tell: the reader of stdout has gone.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What the auth server's log calls the login that failed.
    pub(crate) reference: Option<String>,
    /// What Postiz answered, for `--json-errors`.
    pub(crate) answered: Option<Box<Answered>>,
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The channel that it is about: its name, or its ID.
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

    /// A request reached Postiz, and nobody knows what came of it.
    pub(crate) fn unknown(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Unknown, "outcome_unknown", message.into())
    }

    /// Whoever read our stdout (`head`, a closed pager) has enough: that is success, and nobody is left to tell.
    pub(crate) fn reader_gone() -> CliError {
        CliError::new(Exit::Done, "", String::new())
    }

    /// The error for programs (`--json-errors`).
    pub(crate) fn as_json(&self) -> Value {
        let answered = self.answered.as_deref();
        json!({
            "error": self.message,
            "status": answered.map(|answered| answered.status),
            "channel": answered.and_then(|answered| answered.channel.as_deref()),
            "body": answered.map(Answered::body_as_json),
            "reference": self.reference,
        })
    }

    /// What to do now.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// By what the operator of the auth server finds the login. Who interrupts a login needs none.
    pub(crate) fn reference(mut self, reference: String) -> CliError {
        if self.exit != Exit::Interrupted {
            self.reference = Some(reference);
        }
        self
    }

    /// Says first what the failure means for the thing at hand.
    pub(crate) fn about(mut self, what: &str) -> CliError {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The word for programs, where it is not the usual one.
    pub(crate) fn word(mut self, word: impl Into<String>) -> CliError {
        self.word = word.into();
        self
    }
}

impl Answered {
    /// JSON as it came; anything else as text.
    fn body_as_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&self.body);
            text.chars()
                .take(BODY_CHARACTERS_MAX)
                .collect::<String>()
                .into()
        })
    }
}

/// The hint of a login that ended without a token.
pub(crate) const RUN_AGAIN: &str = "run `postiz auth:login` again";

/// As much of a web page as a program is given.
const BODY_CHARACTERS_MAX: usize = 2_000;
