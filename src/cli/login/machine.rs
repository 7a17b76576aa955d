//! The name of this machine, by which its user tells its login from others': under Settings > Approved Apps in Postiz, and
//! on the auth server's page.

use crate::cli::command::{Flag, Options, Takes, flag, utf8};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::shared::text::printable;

pub(crate) static MACHINE: Flag = flag(
    "machine",
    None,
    Takes::Value("NAME"),
    "what to call this machine in Postiz (default: its host name; '' for no name)",
);

/// `--machine`, else the host name without its domain; empty where there is none or none is wanted.
pub(super) fn machine_name(context: &Context, options: &Options) -> Result<String, CliError> {
    if let Some(given) = options.raw(&MACHINE) {
        return Ok(clean(utf8(&MACHINE, given)?));
    }
    let host_name = context.host_name.as_deref().unwrap_or_default();
    Ok(clean(host_name.split('.').next().unwrap_or_default()))
}

/// One line of at most [`NAME_CHARACTERS_MAX`].
fn clean(name: &str) -> String {
    let printable = printable(name);
    let cut: String = printable.trim().chars().take(NAME_CHARACTERS_MAX).collect();
    cut.trim_end().to_owned()
}

/// As long as one part of a host's name may be (RFC 1035 §2.3.4), which is also what our auth server takes. Postiz takes 100,
/// with what stands before it.
const NAME_CHARACTERS_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_short_line() {
        assert_eq!(clean("  ada-laptop\n"), "ada-laptop");
        assert_eq!(clean("a\u{1b}[31m\u{202e}b\tc"), "a[31mb c");
        assert_eq!(clean(&"ä".repeat(100)), "ä".repeat(63));
        assert_eq!(clean(" \n"), "");
    }
}
