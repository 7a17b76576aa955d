//! The texts of all pages, for people who do not know OAuth: first what happened, then what to do next. mod.rs replaces
//! `{server}` and `{postiz}` by the two hosts.

/// A page without a form.
pub(super) struct Notice {
    pub(super) mark: Mark,
    pub(super) title: &'static str,
    pub(super) text: &'static str,
    /// The label of the link to the form; `None`: no link.
    pub(super) link: Option<&'static str>,
}

/// The icon above a notice.
pub(super) enum Mark {
    Done,
    Waiting,
    Stopped,
    Problem,
}

/// The product's name, in the header and the title of every page.
pub(super) const NAME: &str = "Postiz command line";

/// The footer of every page.
pub(super) const ABOUT_THIS_SERVER: &str =
    "You are at <b>{server}</b>. It signs the Postiz command line in to <b>{postiz}</b>.";

/// The reference on error pages.
pub(super) const REFERENCE: &str = "<p>Reference: <b>{reference}</b></p>";

pub(super) mod enter_code {
    pub(in super::super) const TITLE: &str = "Enter the code from your terminal";
    pub(in super::super) const TITLE_PROBLEM: &str = "That did not work";
    pub(in super::super) const ABOUT: &str =
        "Your terminal shows a code. Type it here to let the Postiz command line use your account.";
    pub(in super::super) const LABEL: &str = "Code";
    pub(in super::super) const HINT: &str =
        "Eight letters and digits, like WDJB-MJHT. Capitals and the dash do not matter.";
    pub(in super::super) const GO_ON: &str = "Continue";
    pub(in super::super) const WARNING: &str = "Go on only if you started this yourself. A stranger who gives you a code wants to get at your Postiz account.";
    pub(in super::super) const MISSING: &str =
        "The field was empty. Enter the code that your terminal shows.";
    pub(in super::super) const UNKNOWN: &str = "This code is mistyped, too old, or already used. Check it, or get a new one: run <kbd>postiz auth:login</kbd> again.";
    pub(in super::super) const NO_COOKIE: &str = "Your browser did not send our cookie back. Continue once more; if that does not help, allow cookies for <b>{server}</b>.";
}

pub(super) mod confirm {
    pub(in super::super) const TITLE: &str = "Does your terminal show this code?";
    pub(in super::super) const ABOUT: &str = "The Postiz command line asks to use your account:";
    pub(in super::super) const STARTED: &str = "Started";
    pub(in super::super) const PROGRAM: &str = "Program";
    pub(in super::super) const MACHINE: &str = "Machine";
    pub(in super::super) const ADDRESS: &str = "Address";
    pub(in super::super) const WARNING: &str = "Go on only if you started this yourself and the same code stands in your terminal. If not, refuse.";
    pub(in super::super) const GO_ON: &str = "Continue";
    pub(in super::super) const REFUSE: &str = "Refuse";
    pub(in super::super) const NEXT: &str =
        "Next, Postiz at <b>{postiz}</b> asks for your permission.";
    pub(in super::super) const ENDS: &str =
        " Signing in here ends an earlier login of the same account on another machine.";
}

pub(super) const SIGNED_IN: Notice = Notice {
    mark: Mark::Done,
    title: "You are signed in",
    text: "Go back to your terminal. You can close this page.",
    link: None,
};

pub(super) const FINISHING: Notice = Notice {
    mark: Mark::Waiting,
    title: "Your sign-in is being finished",
    text: "This takes a few seconds. The page reloads by itself.",
    link: None,
};

pub(super) const LOGIN_OVER: Notice = Notice {
    mark: Mark::Problem,
    title: "This login is over",
    text: "Postiz refused it too often. Go back to your terminal and run <kbd>postiz auth:login</kbd> again.",
    link: None,
};

pub(super) const REFUSED: Notice = Notice {
    mark: Mark::Stopped,
    title: "You refused this login",
    text: "Nobody was signed in, and the code no longer works. You can close this page and go back to your terminal.",
    link: None,
};

pub(super) const SESSION_LOST: Notice = Notice {
    mark: Mark::Problem,
    title: "This browser lost track of the login",
    text: "It took too long, it began in another browser, or cookies are blocked. Allow cookies for <b>{server}</b>, then enter the code again.",
    link: Some(ENTER_AGAIN),
};

pub(super) const CROSS_SITE: Notice = Notice {
    mark: Mark::Stopped,
    title: "Another website sent you here",
    text: "It tried to enter a code for you, so we did nothing. If you are signing in yourself, enter the code from your terminal.",
    link: Some(ENTER),
};

pub(super) const OTHER_NAME: Notice = Notice {
    mark: Mark::Stopped,
    title: "This server has another address",
    text: "Signing in works at <b>{server}</b> only. Enter the code there.",
    link: Some(ENTER),
};

pub(super) const EXCHANGE_REFUSED: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz did not complete the login",
    text: "Your permission came too late or was used already. Enter the code again; it still works.",
    link: Some(ENTER_AGAIN),
};

pub(super) const AUTHORIZATION_FAILED: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz did not complete the login",
    text: "It reported an error of its own. Wait a minute, then enter the code again; it still works.",
    link: Some(ENTER_AGAIN),
};

pub(super) const SERVER_MISCONFIGURED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "Postiz does not accept its client ID or secret. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: None,
};

pub(super) const UNREGISTERED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "Postiz at <b>{postiz}</b> does not let it register logins. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: None,
};

pub(super) const POSTIZ_MISCONFIGURED: Notice = Notice {
    mark: Mark::Problem,
    title: "This server is not set up correctly",
    text: "It does not reach the Postiz of <b>{postiz}</b>. Please tell the person who runs <b>{server}</b>; until then nobody can sign in here.",
    link: None,
};

pub(super) const RELAYED: Notice = Notice {
    mark: Mark::Problem,
    title: "This permission is for another Postiz",
    text: "You chose a self-hosted instance; what <b>{postiz}</b> gives for that works for MCP alone. Enter the code again, and allow your account there.",
    link: Some(ENTER_AGAIN),
};

pub(super) const POSTIZ_UNREACHABLE: Notice = Notice {
    mark: Mark::Problem,
    title: "Postiz could not be reached",
    text: "<b>{postiz}</b> gave no proper answer. Wait a minute, then enter the code again; it still works.",
    link: Some(ENTER_AGAIN),
};

pub(super) const TOO_MANY_TRIES: Notice = Notice {
    mark: Mark::Stopped,
    title: "Too many wrong codes",
    text: "So that nobody can guess codes, there is a pause now. Wait {wait}, then enter the code from your terminal.",
    link: Some(ENTER_AGAIN),
};

pub(super) const TOO_MANY_CALLBACKS: Notice = Notice {
    mark: Mark::Stopped,
    title: "Too many sign-ins at once",
    text: "Many people sign in from your network just now. Wait {wait}, then reload this page.",
    link: None,
};

pub(super) const UNAVAILABLE: Notice = Notice {
    mark: Mark::Problem,
    title: "Not possible at the moment",
    text: "This server cannot look up codes just now. Nothing is lost: wait a minute, then enter the code again.",
    link: Some(ENTER_AGAIN),
};

pub(super) const NOT_FOUND: Notice = Notice {
    mark: Mark::Problem,
    title: "There is no such page",
    text: "The address is mistyped or incomplete. If you are signing in, enter the code from your terminal.",
    link: Some(ENTER),
};

pub(super) const INTERNAL_ERROR: Notice = Notice {
    mark: Mark::Problem,
    title: "Something went wrong here",
    text: "The fault is not yours. Enter the code again; if that does not help, tell the person who runs <b>{server}</b>.",
    link: Some(ENTER_AGAIN),
};

const ENTER: &str = "Enter the code";
const ENTER_AGAIN: &str = "Enter the code again";

/// A name that the client gave, which is not verified.
pub(super) fn calls_itself(program: &str) -> String {
    format!("calls itself {program}")
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
