//! The environment's variables, and what is wrong with those that cannot be used.

use std::ffi::OsString;
use std::fmt;

/// Looks up a variable: its value, or `None` when it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is wrong with a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableProblem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, in words that go after its name and a colon. It holds no secret.
    pub text: String,
}

impl fmt::Display for VariableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}
