//! Opens the user's browser where that makes sense: never through a shell, and without waiting for it.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::context::Vars;

/// Why no browser is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBrowser {
    /// `--no-browser`.
    NotWanted,
    /// The program runs over SSH, so that its browser would be on another machine than the user.
    OverSsh,
    /// There is neither a display nor a terminal.
    NoDisplay,
    /// `BROWSER` names a text browser, which would hide the code that this terminal shows.
    InThisTerminal,
}

/// May a browser be opened? `BROWSER` counts also over SSH and without a display.
pub(crate) fn may_open(wanted: bool, vars: &Vars, has_terminal: bool) -> Result<(), NoBrowser> {
    if !wanted {
        return Err(NoBrowser::NotWanted);
    }
    match vars.text("BROWSER") {
        Some(browser) if is_for_terminals(&browser) => return Err(NoBrowser::InThisTerminal),
        Some(_) => return Ok(()),
        None if is_over_ssh(vars) => return Err(NoBrowser::OverSsh),
        None => {}
    }
    // macOS has a display, and no variable that says so.
    let has_display =
        !cfg!(target_os = "linux") || vars.is_set("DISPLAY") || vars.is_set("WAYLAND_DISPLAY");
    match has_display || has_terminal {
        true => Ok(()),
        false => Err(NoBrowser::NoDisplay),
    }
}

/// Does this program run over SSH, so that its user is at another machine?
pub(crate) fn is_over_ssh(vars: &Vars) -> bool {
    let names = ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"];
    names.iter().any(|name| vars.is_set(name))
}

/// Is the first command in `BROWSER` a text browser? (These have no JavaScript either, which Postiz' pages need.)
fn is_for_terminals(browser: &str) -> bool {
    let first = browser.split(':').next().unwrap_or_default();
    let program = first.split_ascii_whitespace().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    ["lynx", "links", "links2", "elinks", "w3m", "www-browser"].contains(&name)
}

/// Opens `url` in the user's browser; `false` when that is known to have failed.
///
/// The `webbrowser` crate waits for `xdg-settings` and for text browsers. It runs on its own thread, so that the login does
/// not wait for them.
pub fn open(url: &str) -> bool {
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return false;
    }
    let url = url.to_owned();
    let (sender, result) = mpsc::channel();
    let opener = thread::Builder::new()
        .name("browser".to_owned())
        .spawn(move || {
            let opened = webbrowser::open(&url).is_ok() || open_with_xdg_open(&url);
            // After the timeout nobody receives this.
            let _ = sender.send(opened);
        });
    // A browser that takes longer is starting rather than failing.
    opener.is_ok() && result.recv_timeout(OPEN_TIMEOUT).unwrap_or(true)
}

/// Opens `url` by `xdg-open` alone: containers and remote workspaces have one, and nothing else of a desktop.
fn open_with_xdg_open(url: &str) -> bool {
    let mut command = Command::new("xdg-open");
    command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().is_ok()
}

const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(names: &[&str]) -> Vars {
        Vars::new(names.iter().map(|name| (name.into(), "x".into())))
    }

    #[test]
    fn browser_opens_only_on_the_users_machine() {
        type Row<'a> = (bool, &'a [&'a str], bool, Result<(), NoBrowser>);
        let rows: [Row; 9] = [
            (true, &["DISPLAY"], true, Ok(())),
            (true, &["DISPLAY"], false, Ok(())),
            (true, &["WAYLAND_DISPLAY"], false, Ok(())),
            (true, &[], true, Ok(())),
            (
                true,
                &["DISPLAY", "SSH_CONNECTION"],
                true,
                Err(NoBrowser::OverSsh),
            ),
            (true, &["SSH_TTY"], true, Err(NoBrowser::OverSsh)),
            (true, &["SSH_CONNECTION", "BROWSER"], true, Ok(())),
            (true, &["BROWSER"], false, Ok(())),
            (
                false,
                &["DISPLAY", "BROWSER"],
                true,
                Err(NoBrowser::NotWanted),
            ),
        ];
        let text_browser = |value: &str| Vars::new([("BROWSER".into(), value.into())]);
        for value in ["w3m", "/usr/bin/lynx -accept_all_cookies %s:firefox"] {
            let no_browser = may_open(true, &text_browser(value), true);
            assert_eq!(no_browser, Err(NoBrowser::InThisTerminal), "{value}");
        }
        for (wanted, names, terminal, expected) in rows {
            assert_eq!(
                may_open(wanted, &vars(names), terminal),
                expected,
                "{names:?} {terminal}"
            );
        }
        if cfg!(target_os = "linux") {
            assert_eq!(may_open(true, &vars(&[]), false), Err(NoBrowser::NoDisplay));
        }
    }

    #[test]
    fn only_web_addresses_are_opened() {
        for url in [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "$(touch x)",
            "",
            "-h",
            "ftp://a",
        ] {
            assert!(!open(url), "{url}");
        }
    }
}
