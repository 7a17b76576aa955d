//! A variable of the environment that cannot be used, and why.

use std::ffi::OsString;
use std::fmt;

/// Looks a variable up: its value, `None` where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is wrong with a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, to be put after its name and a colon. It holds no secret.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}
