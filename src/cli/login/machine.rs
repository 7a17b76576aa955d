//! The name of this machine. It tells the user's logins apart under Settings > Approved Apps in Postiz and on the auth
//! server's page.

use crate::cli::command::{Flag, Options, utf8, value};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::shared::text::printable;

pub(crate) static MACHINE: Flag = value(
    "machine",
    "NAME",
    "what to call this machine in Postiz (default: its host name; '' for no name)",
);

/// The value of `--machine`, else the host name without its domain. Empty when there is none, or none is wanted.
pub(super) fn machine_name(context: &Context, options: &Options) -> Result<String, CliError> {
    if let Some(given) = options.raw(&MACHINE) {
        return Ok(clean(utf8(&MACHINE, given)?));
    }
    let host_name = context.host_name.as_deref().unwrap_or_default();
    Ok(clean(host_name.split('.').next().unwrap_or_default()))
}

/// `name` as one line of at most [`NAME_CHARACTERS_MAX`].
fn clean(name: &str) -> String {
    let printable = printable(name);
    let cut: String = printable.trim().chars().take(NAME_CHARACTERS_MAX).collect();
    cut.trim_end().to_owned()
}

/// The limit for one part of a host name (RFC 1035 §2.3.4), and of our auth server. Postiz allows 100, with our prefix.
const NAME_CHARACTERS_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_short_line() {
        assert_eq!(clean("  ada-laptop\n"), "ada-laptop");
        assert_eq!(clean("a\u{1b}[31m\u{202e}b\tc"), "a[31mb c");
        assert_eq!(clean(&"ä".repeat(100)), "ä".repeat(63));
        assert_eq!(clean(" \n"), "");
    }
}
