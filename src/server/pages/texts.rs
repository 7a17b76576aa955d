//! The texts of the pages without a form and those that depend on the login, for people who do not know OAuth: first what
//! happened, then what to do next. mod.rs fills the slots, such as `{server}`; the fixed texts of the forms are in *.html.

use crate::server::pages::CodeProblem;

/// A page without a form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    pub(super) mark: Mark,
    pub(super) title: &'static str,
    pub(super) text: &'static str,
    /// The link to the form, or empty.
    pub(super) link: &'static str,
}

/// The icon above a notice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    Done,
    /// The page reloads itself.
    Waiting,
    Stopped,
    Problem,
}

const ENTER: &str = r#"<a class="button" href="{verify_path}">Enter the code</a>"#;
const ENTER_AGAIN: &str = r#"<a class="button" href="{verify_path}">Enter the code again</a>"#;
const ENTER_AT_SERVER_URL: &str = r#"<a class="button" href="{verify_url}">Enter the code</a>"#;

pub(crate) const SIGNED_IN: Notice = Notice {
    mark: Mark::Done,
    title: "You are signed in",
    text: "Go back to your terminal. You can close this page.",
    link: "",
};

/// Another callback of the login is exchanging the code.
pub(crate) const FINISHING: Notice = Notice {
    mark: Mark::Waiting,
    title: "Your sign-in is being finished",
    text: "This takes a few seconds. The page reloads by itself.",
    link: "",
};

/// Postiz has refused so many codes that the login is over.
pub(crate) const LOGIN_OVER: Notice = Notice {
    mark: Mark::Problem,
    title: "This login is over",
    text: "Postiz refused it too often. Go back to your terminal and run <kbd>postiz auth:login</kbd> again.",
    link: "",
};

/// The user refused, here or at Postiz.
pub(crate) const REFUSED: Notice = Notice {
    mark: Mark::Stopped,
    title: "You refused this login",
    text: "Nobody was signed in, and the code no longer works. You can close this page and go back to your terminal.",
    link: "",
};

/// The callback names no login of this browser: its `state` is missing, unknown or expired, or the cookie is missing.
pub(crate) const SESSION_LOST: Notice = Notice {
    mark: Mark::Problem,
    title: "This browser lost track of the login",
    text: "It took too long, it began in another browser, or cookies are blocked. Allow cookies for <b>{server}</b>, then enter the code again.",
    link: ENTER_AGAIN,
};

/// The form was sent from another site.
pub(crate) const CROSS_SITE: Notice = Notice {
    mark: Mark::Stopped,
    title: "Another website sent you here",
    text: "It tried to enter a code for you, so we did nothing. If you are signing in yourself, enter the code from your terminal.",
    link: ENTER,
};

/// The form was sent from this server's own page under another name than SERVER_URL's.
pub(crate) const OTHER_NAME: Notice = Notice {
    mark: Mark::Stopped,
    title: "This server has another address",
    text: "Signing in works at <b>{server}</b> only. Enter the code there.",
    link: ENTER_AT_SERVER_URL,
};

pub(crate) const EXCHANGE_REFUSED: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz did not complete the login",
    text: "Your permission came too late or was used already. Enter the code again; it still works.",
    link: ENTER_AGAIN,
};

/// Postiz ended the authorization with an error other than a refusal.
pub(crate) const AUTHORIZATION_FAILED: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz did not complete the login",
    text: "It reported an error of its own. Wait a minute, then enter the code again; it still works.",
    link: ENTER_AGAIN,
};

pub(crate) const SERVER_MISCONFIGURED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "Postiz does not accept its client ID or secret. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: "",
};

/// Postiz refused to register a client.
pub(crate) const UNREGISTERED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "Postiz at <b>{postiz}</b> does not let it register logins. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: "",
};

/// POSTIZ_API_URL is not Postiz' API, or its certificate is not trusted.
pub(crate) const POSTIZ_MISCONFIGURED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "It does not reach the Postiz of <b>{postiz}</b>. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: "",
};

/// The user chose a self-hosted instance on the consent page of Postiz' cloud.
pub(crate) const RELAYED: Notice = Notice {
    mark: Mark::Problem,
    title: "This permission is for another Postiz",
    text: "You chose a self-hosted instance on the permission page. Such a permission works for MCP alone. Enter the code again, and allow your account at <b>{postiz}</b>.",
    link: ENTER_AGAIN,
};

pub(crate) const POSTIZ_UNREACHABLE: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz could not be reached",
    text: "<b>{postiz}</b> gave no proper answer. Wait a minute, then enter the code again; it still works.",
    link: ENTER_AGAIN,
};

pub(crate) const TOO_MANY_TRIES: Notice = Notice {
    mark: Mark::Stopped,
    title: "Too many wrong codes",
    text: "So that nobody can guess codes, there is a pause now. Wait {wait}, then enter the code from your terminal.",
    link: ENTER_AGAIN,
};

pub(crate) const TOO_MANY_CALLBACKS: Notice = Notice {
    mark: Mark::Stopped,
    title: "Too many sign-ins at once",
    text: "Many people sign in from your network just now. Wait {wait}, then reload this page.",
    link: "",
};

/// The store is unavailable.
pub(crate) const UNAVAILABLE: Notice = Notice {
    mark: Mark::Problem,
    title: "Not possible at the moment",
    text: "This server cannot look up codes just now. Nothing is lost: wait a minute, then enter the code again.",
    link: ENTER_AGAIN,
};

pub(crate) const NOT_FOUND: Notice = Notice {
    mark: Mark::Problem,
    title: "There is no such page",
    text: "The address is mistyped or incomplete. If you are signing in, enter the code from your terminal.",
    link: ENTER,
};

/// A handler panicked.
pub(crate) const INTERNAL_ERROR: Notice = Notice {
    mark: Mark::Problem,
    title: "Something went wrong here",
    text: "The fault is not yours. Enter the code again; if that does not help, tell the person who runs <b>{server}</b>.",
    link: ENTER_AGAIN,
};

/// What is wrong with the code that was entered.
pub(super) fn code_problem(problem: CodeProblem) -> &'static str {
    match problem {
        CodeProblem::Missing => "The field was empty. Enter the code that your terminal shows.",
        CodeProblem::Unknown => {
            "This code is mistyped, too old, or already used. Check it, or get a new one: run <kbd>postiz auth:login</kbd> again."
        }
        CodeProblem::NoCookie => {
            "Your browser did not send our cookie back. Continue once more; if that does not help, allow cookies for <b>{server}</b>."
        }
    }
}

/// How long ago a login was started, in minutes.
pub(super) fn ago(seconds: u64) -> String {
    match seconds / 60 {
        0 => "less than a minute ago".to_owned(),
        minutes => format!("{} ago", counted(minutes, "minute")),
    }
}

/// How long to wait, rounded up.
pub(super) fn wait(seconds: u64) -> String {
    match seconds {
        0..=90 => counted(seconds.max(1), "second"),
        _ => counted(seconds.div_ceil(60), "minute"),
    }
}

fn counted(number: u64, unit: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_seconds_or_minutes() {
        assert_eq!(ago(59), "less than a minute ago");
        assert_eq!(ago(60), "1 minute ago");
        assert_eq!(ago(899), "14 minutes ago");
        assert_eq!(wait(0), "1 second");
        assert_eq!(wait(90), "90 seconds");
        assert_eq!(wait(121), "3 minutes");
    }
}
