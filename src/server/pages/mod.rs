//! What the user sees in the browser: every page, whole and in one answer, needing no script. When a page is shown is
//! http's business. The words are in texts.rs, the layout in *.html and style.css.

mod html;
mod policy;
mod texts;

use std::time::Duration;

use html::Html;
use texts::{Mark, Notice};

/// Where the pages are served, which each of them names or links to.
#[derive(Clone, Debug)]
pub struct Site {
    /// Path of the form that takes the code, with SERVER_URL's own path: `/cli-auth/device/verify`.
    pub verify_path: String,
    /// This server's host, as the user knows it from the terminal.
    pub server_host: String,
    /// The host of the Postiz that the user is sent to.
    pub postiz_host: String,
}

/// One page, with all that varies in it. Texts from outside (`typed`, `client_agent`) are escaped when rendered.
#[derive(Clone, Debug)]
pub enum Page<'a> {
    /// The form, empty or with what was typed, perhaps with what is wrong with it.
    EnterCode {
        /// What the field holds: nothing, or the code as it was typed.
        typed: &'a str,
        /// Why the last try failed.
        problem: Option<CodeProblem>,
    },
    /// The code names a live request: who asked, and whether to go on or refuse.
    Confirm {
        /// The code, `WDJB-MJHT`.
        user_code: &'a str,
        /// Address of the client that started the login, where known.
        client_address: &'a str,
        /// That client's user agent, where it sent one.
        client_agent: &'a str,
        /// How long ago it started.
        age: Duration,
    },
    /// The login is done.
    SignedIn,
    /// The user refused, here or at Postiz.
    Refused,
    /// The callback names no login of this browser: its state is missing, unknown or expired, or its cookie is not here.
    SessionLost,
    /// The form was sent from another site.
    CrossSite,
    /// Postiz refused the authorization code; trying again may help.
    ExchangeRefused,
    /// Postiz ended the authorization with an error other than a refusal.
    AuthorizationFailed,
    /// Postiz does not know this server's client ID or secret: a case for its administrator.
    ServerMisconfigured,
    /// Postiz did not answer, or not sensibly.
    PostizUnreachable,
    /// Too many wrong codes.
    TooManyTries {
        /// Seconds until the next try is allowed.
        retry_after_s: u64,
    },
    /// The store cannot be reached for the moment.
    Unavailable,
    /// No such page.
    NotFound,
    /// Something went wrong in this server.
    InternalError,
}

/// What is wrong with a code that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeProblem {
    /// Nothing was entered.
    Missing,
    /// No live request has this code: mistyped, expired, or already used.
    Unknown,
}

impl Page<'_> {
    /// The page as HTML.
    pub fn render(&self, site: &Site) -> String {
        let (title, content) = match self {
            Page::EnterCode { typed, problem } => enter_code(typed, *problem, site),
            Page::Confirm {
                user_code,
                client_address,
                client_agent,
                age,
            } => {
                let who = who_asks(client_address, client_agent, *age);
                confirm(user_code, who, site)
            }
            Page::SignedIn => notice(texts::SIGNED_IN, site),
            Page::Refused => notice(texts::REFUSED, site),
            Page::SessionLost => notice(texts::SESSION_LOST, site),
            Page::CrossSite => notice(texts::CROSS_SITE, site),
            Page::ExchangeRefused => notice(texts::EXCHANGE_REFUSED, site),
            Page::AuthorizationFailed => notice(texts::AUTHORIZATION_FAILED, site),
            Page::ServerMisconfigured => notice(texts::SERVER_MISCONFIGURED, site),
            Page::PostizUnreachable => notice(texts::POSTIZ_UNREACHABLE, site),
            Page::TooManyTries { retry_after_s } => too_many_tries(*retry_after_s, site),
            Page::Unavailable => notice(texts::UNAVAILABLE, site),
            Page::NotFound => notice(texts::NOT_FOUND, site),
            Page::InternalError => notice(texts::INTERNAL_ERROR, site),
        };
        let page = Html::fill(
            include_str!("frame.html"),
            &[
                ("title", Html::markup(title)),
                ("name", Html::markup(texts::NAME)),
                ("icon", Html::markup(ICON)),
                ("prompt", Html::markup(PROMPT)),
                ("style", Html::markup(policy::STYLE)),
                ("content", content),
                ("about", with_hosts(texts::ABOUT_THIS_SERVER, site)),
            ],
        );
        page.into_string()
    }
}

/// The `Content-Security-Policy` that all pages are served with.
pub fn content_security_policy() -> &'static str {
    &policy::POLICY
}

/// A page's title and what stands in its main part.
type Parts = (&'static str, Html);

fn enter_code(typed: &str, problem: Option<CodeProblem>, site: &Site) -> Parts {
    use texts::enter_code as text;
    let problem = problem.map(|problem| match problem {
        CodeProblem::Missing => text::MISSING,
        CodeProblem::Unknown => text::UNKNOWN,
    });
    let (title, about, invalid) = match problem {
        None => {
            let slots = [("about", Html::markup(text::ABOUT))];
            let about = Html::fill(r#"<p id="about">{about}</p>"#, &slots);
            (text::TITLE, about, "")
        }
        Some(problem) => {
            let slots = [("problem", Html::markup(problem))];
            let about = Html::fill(r#"<p id="about" role="alert">{problem}</p>"#, &slots);
            (text::TITLE_PROBLEM, about, r#" aria-invalid="true""#)
        }
    };
    let content = Html::fill(
        include_str!("enter_code.html"),
        &[
            ("title", Html::markup(title)),
            ("about", about),
            ("verify_path", Html::text(&site.verify_path)),
            ("label", Html::markup(text::LABEL)),
            ("hint", Html::markup(text::HINT)),
            ("typed", Html::text(typed)),
            ("invalid", Html::markup(invalid)),
            ("go_on", Html::markup(text::GO_ON)),
            ("warning", Html::markup(text::WARNING)),
        ],
    );
    (title, content)
}

fn confirm(user_code: &str, who: Html, site: &Site) -> Parts {
    use texts::confirm as text;
    let content = Html::fill(
        include_str!("confirm.html"),
        &[
            ("title", Html::markup(text::TITLE)),
            ("groups", groups(user_code)),
            ("spelled", spelled(user_code)),
            ("about", Html::markup(text::ABOUT)),
            ("who", who),
            ("warning", Html::markup(text::WARNING)),
            ("verify_path", Html::text(&site.verify_path)),
            ("user_code", Html::text(user_code)),
            ("go_on", Html::markup(text::GO_ON)),
            ("refuse", Html::markup(text::REFUSE)),
            ("next", with_hosts(text::NEXT, site)),
        ],
    );
    (text::TITLE, content)
}

/// The rows that let a person tell their own terminal from a stranger's; what is not known has no row.
fn who_asks(client_address: &str, client_agent: &str, age: Duration) -> Html {
    use texts::confirm as text;
    let started = texts::ago(age.as_secs());
    let rows = [
        (text::STARTED, started.as_str()),
        (text::PROGRAM, client_agent),
        (text::ADDRESS, client_address),
    ];
    let known = rows.into_iter().filter(|(_, value)| !value.is_empty());
    Html::concat(known.map(|(name, value)| {
        let slots = [("name", Html::markup(name)), ("value", Html::text(value))];
        Html::fill("<div><dt>{name}</dt><dd>{value}</dd></div>\n", &slots)
    }))
}

/// The code for the eye, which may break into lines only between its groups.
fn groups(user_code: &str) -> Html {
    let groups = user_code.split('-').map(Html::text);
    Html::concat(groups.enumerate().map(|(i, group)| match i {
        0 => group,
        _ => Html::fill("-<wbr>{group}", &[("group", group)]),
    }))
}

/// The code for the ear: a screen reader would take `WDJB` for a word.
fn spelled(user_code: &str) -> Html {
    let letters: Vec<String> = user_code.chars().map(String::from).collect();
    Html::text(&letters.join(" ").replace(" - ", ", "))
}

fn notice(notice: Notice, site: &Site) -> Parts {
    let text = with_hosts(notice.text, site);
    notice_with(notice, text, site)
}

fn too_many_tries(retry_after_s: u64, site: &Site) -> Parts {
    let notice = texts::TOO_MANY_TRIES;
    let wait = Html::text(&texts::wait(retry_after_s));
    let text = Html::fill(notice.text, &[("wait", wait)]);
    notice_with(notice, text, site)
}

fn notice_with(notice: Notice, text: Html, site: &Site) -> Parts {
    let link = notice.link.map_or(Html::default(), |name| {
        let slots = [
            ("verify_path", Html::text(&site.verify_path)),
            ("name", Html::markup(name)),
        ];
        Html::fill(
            r#"<a class="button" href="{verify_path}">{name}</a>"#,
            &slots,
        )
    });
    let content = Html::fill(
        include_str!("notice.html"),
        &[
            ("mark", Html::markup(drawing(&notice.mark))),
            ("title", Html::markup(notice.title)),
            ("text", text),
            ("link", link),
        ],
    );
    (notice.title, content)
}

/// A text of ours with the names of the two hosts in it.
fn with_hosts(text: &'static str, site: &Site) -> Html {
    let slots = [
        ("server", Html::text(&site.server_host)),
        ("postiz", Html::text(&site.postiz_host)),
    ];
    Html::fill(text, &slots)
}

/// A mark as a drawing: which fonts have signs for these is not known.
fn drawing(mark: &Mark) -> &'static str {
    match mark {
        Mark::Done => {
            r#"<svg class="good" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10"/><path d="m7.5 12.5 3 3 6-6.5"/></svg>"#
        }
        Mark::Stopped => {
            r#"<svg class="soft" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10"/><path d="m8.5 8.5 7 7m0-7-7 7"/></svg>"#
        }
        Mark::Problem => {
            r#"<svg class="bad" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10"/><path d="M12 7v6m0 3.5v.01"/></svg>"#
        }
    }
}

/// A terminal's prompt, for the head of the page.
const PROMPT: &str = r#"<svg viewBox="0 0 24 24" aria-hidden="true"><rect x="2" y="4" width="20" height="16" rx="4"/><path d="m7 9 3 3-3 3m6 0h4"/></svg>"#;

/// The same for the browser's tab. As part of the page it saves the browser the request for `/favicon.ico`.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%234a21a8'/%3E%3Cpath d='m4 5 3 3-3 3m5 0h3' fill='none' stroke='%23fff' stroke-width='1.5'/%3E%3C/svg%3E";

#[cfg(test)]
mod tests {
    use super::*;

    /// As hostile as a text from outside can be, and too long.
    fn hostile() -> String {
        "\"'><script>{style}\u{1b}[31m\u{202e}".to_owned() + &"\"".repeat(500)
    }

    fn site() -> Site {
        Site {
            verify_path: "/cli-auth/device/verify".to_owned(),
            server_host: "cli-auth.example.com".to_owned(),
            postiz_host: "platform.postiz.com".to_owned(),
        }
    }

    fn every_page(hostile: &str) -> Vec<(&'static str, Page<'_>)> {
        let enter = |typed, problem| Page::EnterCode { typed, problem };
        let confirm = |client_address, client_agent| Page::Confirm {
            user_code: "WDJB-MJHT",
            client_address,
            client_agent,
            age: Duration::from_secs(125),
        };
        let address_v6 = "2001:db8:85a3:8d3:1319:8a2e:370:7348";
        let unknown = Some(CodeProblem::Unknown);
        vec![
            ("enter-code", enter("", None)),
            ("enter-code-missing", enter("", Some(CodeProblem::Missing))),
            ("enter-code-unknown", enter("wdjb mjhh", unknown)),
            ("enter-code-hostile", enter(hostile, unknown)),
            ("confirm", confirm("203.0.113.7", "postiz/1.0.0 (linux)")),
            ("confirm-v6", confirm(address_v6, "node")),
            ("confirm-nameless", confirm("", "")),
            ("confirm-hostile", confirm(hostile, hostile)),
            ("signed-in", Page::SignedIn),
            ("refused", Page::Refused),
            ("session-lost", Page::SessionLost),
            ("cross-site", Page::CrossSite),
            ("exchange-refused", Page::ExchangeRefused),
            ("authorization-failed", Page::AuthorizationFailed),
            ("server-misconfigured", Page::ServerMisconfigured),
            ("postiz-unreachable", Page::PostizUnreachable),
            ("too-many-tries", Page::TooManyTries { retry_after_s: 60 }),
            ("unavailable", Page::Unavailable),
            ("not-found", Page::NotFound),
            ("internal-error", Page::InternalError),
        ]
    }

    #[test]
    #[ignore = "it writes target/pages, for the browser tests"]
    fn gallery() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pages");
        std::fs::create_dir_all(folder).unwrap();
        for (name, page) in every_page(&hostile()) {
            let file = format!("{folder}/{name}.html");
            std::fs::write(file, page.render(&site())).unwrap();
        }
        let policy = format!("{folder}/content-security-policy");
        std::fs::write(policy, content_security_policy()).unwrap();
    }

    #[test]
    fn each_page_is_whole_and_small() {
        let hostile = hostile();
        for (name, page) in every_page(&hostile) {
            let html = page.render(&site());
            assert!(html.len() < 6_000, "{} bytes: {name}", html.len());
            assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"));
            for once in ["<title>", "<h1>", "<main>", "</html>", "<style>"] {
                assert_eq!(html.matches(once).count(), 1, "{once} in {name}");
            }
            for never in ["<script", "style=", "<title> ", "<h1></h1>", "<p></p>"] {
                assert!(!html.contains(never), "{never} in {name}");
            }
            assert!(html.contains("cli-auth.example.com") && html.contains("platform.postiz.com"));
        }
    }

    #[test]
    fn text_from_outside_stays_text() {
        let hostile = hostile();
        for (name, page) in every_page(&hostile) {
            let html = page.render(&site());
            let (_, content) = html.split_once("</style>").expect("a style");
            assert!(
                !content.contains("'>") && !content.contains("\"\"\""),
                "{name}"
            );
            assert!(!content.contains(['\u{1b}', '\u{202e}']), "{name}");
        }
    }

    #[test]
    fn both_buttons_send_the_code() {
        let who = who_asks("203.0.113.7", "node", Duration::from_secs(125));
        let html = confirm("WDJB-MJHT", who, &site()).1.into_string();
        let form = html.split_once("<form ").expect("a form").1;
        for part in [
            r#"method="post" action="/cli-auth/device/verify""#,
            r#"<input type="hidden" name="user_code" value="WDJB-MJHT">"#,
            r#"name="action" value="deny""#,
        ] {
            assert!(form.contains(part), "{part}");
        }
        assert!(html.contains("WDJB-<wbr>MJHT") && html.contains("W D J B, M J H T"));
        assert!(html.contains("2 minutes ago") && html.contains("203.0.113.7"));
    }

    #[test]
    fn what_is_not_known_has_no_row() {
        let html = confirm("WDJB-MJHT", who_asks("", "", Duration::ZERO), &site()).1;
        assert_eq!(html.into_string().matches("<dt>").count(), 1);
    }

    #[test]
    fn an_error_is_announced_where_the_code_is_typed() {
        let page = Page::EnterCode {
            typed: "WDJB",
            problem: Some(CodeProblem::Unknown),
        };
        let html = page.render(&site());
        for part in [
            r#"<p id="about" role="alert">"#,
            r#"value="WDJB" aria-describedby="about hint" aria-invalid="true" autofocus"#,
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn policy_allows_the_style_as_sent() {
        let html = Page::SignedIn.render(&site());
        let style = html
            .split_once("<style>")
            .and_then(|(_, rest)| rest.split_once("</style>"));
        assert_eq!(style.expect("a style").0, policy::STYLE);
        assert!(content_security_policy().contains("style-src 'sha256-"));
        assert!(!content_security_policy().contains("unsafe"));
    }
}
