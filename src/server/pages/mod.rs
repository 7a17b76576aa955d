//! Renders the pages for the browser, each complete in one answer and without scripts. The texts are in texts.rs, the layout is
//! in *.html and shared/style.css.

mod html;
pub(crate) mod texts;

use std::sync::LazyLock;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use html::Html;
use texts::{Mark, Notice};

use crate::shared::base64::base64;

/// The addresses that pages name or link to.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The path of the form to enter a code, with SERVER_URL's path: `/cli-auth/device/verify`.
    pub verify_path: String,
    pub verify_url: String,
    pub server_host: String,
    pub postiz_host: String,
    /// Whether there is an OAuth app. In an app Postiz keeps one token for each account, so a login ends an earlier one.
    pub has_app: bool,
}

/// A page with its variable parts. Rendering escapes them.
#[derive(Clone, Debug)]
pub(crate) enum Page<'a> {
    /// The form to enter a code.
    EnterCode {
        form: Form<'a>,
        /// The content of the field: empty, or the code that was sent.
        typed: &'a str,
        /// The problem with the code that was sent.
        problem: Option<CodeProblem>,
    },
    /// The confirm page: who started the login, with buttons to continue and to refuse.
    Confirm {
        form: Form<'a>,
        user_code: &'a str,
        /// The address of the client that started the login; may be empty.
        client_address: &'a str,
        /// The client's user agent; may be empty.
        client_agent: &'a str,
        /// The machine's name, as the client gave it; may be empty.
        machine: &'a str,
        /// How long ago the login was started.
        age: Duration,
    },
    /// A page without a form.
    Notice(Notice),
    /// The same, with the seconds to wait before trying again.
    Pause(Notice, u64),
}

/// The hidden fields of a form.
#[derive(Clone, Debug)]
pub(crate) struct Form<'a> {
    /// The form token, which is bound to the browser's cookie.
    pub token: String,
    /// The MAC from this server's link; may be empty.
    pub link_mac: &'a str,
}

/// The problem with a code that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeProblem {
    /// Nothing was entered.
    Missing,
    /// No open login has this code: it is mistyped, expired, or already used.
    Unknown,
    /// The browser did not send the cookie that the form came with.
    NoCookie,
}

impl Page<'_> {
    /// The page as HTML. Error pages show a `reference`, by which the operator finds the cause in the log.
    pub(crate) fn render(&self, site: &Site, reference: Option<&str>) -> String {
        let (title, content) = match self {
            Page::EnterCode {
                form,
                typed,
                problem,
            } => enter_code(form, typed, *problem, site),
            Page::Confirm {
                form,
                user_code,
                client_address,
                client_agent,
                machine,
                age,
            } => {
                let who = who_asks(client_address, client_agent, machine, *age);
                confirm(form, user_code, who, site)
            }
            Page::Notice(text) => notice(text, "", site),
            Page::Pause(text, wait_s) => notice(text, &texts::wait(*wait_s), site),
        };
        let reference = reference.map_or(Html::default(), |reference| {
            let slots = [("reference", Html::text(reference))];
            Html::fill("<p>Reference: <b>{reference}</b></p>", &slots)
        });
        let refresh = match self {
            Page::Notice(Notice {
                mark: Mark::Waiting,
                ..
            }) => "<meta http-equiv=\"refresh\" content=\"2\">\n",
            _ => "",
        };
        let page = Html::fill(
            include_str!("frame.html"),
            &[
                ("title", Html::markup(title)),
                ("refresh", Html::markup(refresh)),
                ("style", Html::markup(STYLE)),
                ("content", content),
                ("reference", reference),
                ("server", Html::text(&site.server_host)),
                ("postiz", Html::text(&site.postiz_host)),
            ],
        );
        page.into_string()
    }
}

/// The style sheet, exactly as it is between `<style>` and `</style>`, since the policy has a hash of it.
const STYLE: &str = include_str!("../../shared/style.css");

/// The `Content-Security-Policy` of all pages: it allows their inline style and icon, and nothing else.
///
/// It has no `form-action`: Chromium applies that to every redirect after a form, and Postiz may redirect to a single sign-on at
/// an unknown host. It is not needed, since no text from outside can become markup (html.rs).
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = base64(digest(&SHA256, STYLE.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// A page's title and main content.
type Parts = (&'static str, Html);

fn enter_code(form: &Form, typed: &str, problem: Option<CodeProblem>, site: &Site) -> Parts {
    let (title, about, invalid) = match problem {
        None => ("Enter the code from your terminal", ABOUT, ""),
        Some(_) => (
            "That did not work",
            ABOUT_PROBLEM,
            r#" aria-invalid="true""#,
        ),
    };
    let problem = problem.map_or("", texts::code_problem);
    let content = Html::fill(
        include_str!("enter_code.html"),
        &[
            ("title", Html::markup(title)),
            (
                "about",
                Html::fill(about, &[("problem", with_site(problem, "", site))]),
            ),
            ("verify_path", Html::text(&site.verify_path)),
            ("hidden", hidden(form)),
            ("typed", Html::text(typed)),
            ("invalid", Html::markup(invalid)),
        ],
    );
    (title, content)
}

const ABOUT: &str = r#"<p id="about">Your terminal shows a code. Type it here to let the Postiz command line use your account.</p>"#;
const ABOUT_PROBLEM: &str = r#"<p id="about" role="alert">{problem}</p>"#;

fn confirm(form: &Form, user_code: &str, who: Html, site: &Site) -> Parts {
    let title = "Does your terminal show this code?";
    let ends = match site.has_app {
        true => " Signing in here ends an earlier login of the same account on another machine.",
        false => "",
    };
    let content = Html::fill(
        include_str!("confirm.html"),
        &[
            ("title", Html::markup(title)),
            ("groups", groups(user_code)),
            ("spelled", spelled(user_code)),
            ("who", who),
            ("verify_path", Html::text(&site.verify_path)),
            ("hidden", hidden(form)),
            ("user_code", Html::text(user_code)),
            ("postiz", Html::text(&site.postiz_host)),
            ("ends", Html::markup(ends)),
        ],
    );
    (title, content)
}

fn hidden(form: &Form) -> Html {
    let field = |name, value: &str| {
        let slots = [("name", Html::markup(name)), ("value", Html::text(value))];
        Html::fill(
            "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n",
            &slots,
        )
    };
    let link_mac = Some(form.link_mac).filter(|mac| !mac.is_empty());
    Html::concat(
        [field("form_token", &form.token)]
            .into_iter()
            .chain(link_mac.map(|mac| field("mac", mac))),
    )
}

/// The rows about who started the login. Unknown values have no row.
fn who_asks(client_address: &str, client_agent: &str, machine: &str, age: Duration) -> Html {
    let started = texts::ago(age.as_secs());
    // The client gave these names, which are not verified.
    let said = |name: &str| match name {
        "" => String::new(),
        name => format!("calls itself {name}"),
    };
    let program = Some(client_agent).filter(|agent| is_program_name(agent));
    let program = said(program.unwrap_or_default());
    let rows = [
        ("Started", started.as_str()),
        ("Program", &program),
        ("Machine", &said(machine)),
        ("Address", client_address),
    ];
    let known = rows.into_iter().filter(|(_, value)| !value.is_empty());
    Html::concat(known.map(|(name, value)| {
        let slots = [("name", Html::markup(name)), ("value", Html::text(value))];
        Html::fill("<div><dt>{name}</dt><dd>{value}</dd></div>\n", &slots)
    }))
}

/// Whether `agent` is `name/version`, with or without `(system)`. Others are not shown, since an attacker could put a message to
/// the user into it.
fn is_program_name(agent: &str) -> bool {
    let (program, system) = match agent.split_once(" (") {
        Some((program, system)) => (program, system.strip_suffix(')')),
        None => (agent, Some("")),
    };
    let is_word = |word: &str, length_max, others: &[char]| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || others.contains(&c);
        word.len() <= length_max && word.chars().all(is_part)
    };
    let (Some((name, version)), Some(system)) = (program.split_once('/'), system) else {
        return false;
    };
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && is_word(name, 20, &['-', '_'])
        && version.starts_with(|c: char| c.is_ascii_digit())
        && is_word(version, 20, &['.', '-', '+'])
        && is_word(system, 30, &[' ', '_', '-', ';', ','])
        && system.split(' ').count() <= 3
}

/// The code as it is shown: a line break is possible only between its groups.
fn groups(user_code: &str) -> Html {
    let groups = user_code.split('-').map(Html::text);
    Html::concat(groups.enumerate().map(|(i, group)| match i {
        0 => group,
        _ => Html::fill("-<wbr>{group}", &[("group", group)]),
    }))
}

/// The code for screen readers, which would pronounce `WDJB` as a word.
fn spelled(user_code: &str) -> Html {
    let letters: Vec<String> = user_code.chars().map(String::from).collect();
    Html::text(&letters.join(" ").replace(" - ", ", "))
}

fn notice(notice: &Notice, wait: &str, site: &Site) -> Parts {
    // The icon is SVG, since fonts may lack characters for it.
    let (class, path) = match notice.mark {
        Mark::Done => ("good", "m7.5 12.5 3 3 6-6.5"),
        Mark::Waiting => ("soft", "M12 7v5l3.5 2"),
        Mark::Stopped => ("soft", "m8.5 8.5 7 7m0-7-7 7"),
        Mark::Problem => ("bad", "M12 7v6m0 3.5v.01"),
    };
    let content = Html::fill(
        include_str!("notice.html"),
        &[
            ("class", Html::markup(class)),
            ("path", Html::markup(path)),
            ("title", Html::markup(notice.title)),
            ("text", with_site(notice.text, wait, site)),
            ("link", with_site(notice.link, wait, site)),
        ],
    );
    (notice.title, content)
}

/// A text with its slots filled.
fn with_site(text: &'static str, wait: &str, site: &Site) -> Html {
    let slots = [
        ("server", Html::text(&site.server_host)),
        ("postiz", Html::text(&site.postiz_host)),
        ("verify_path", Html::text(&site.verify_path)),
        ("verify_url", Html::text(&site.verify_url)),
        ("wait", Html::text(wait)),
    ];
    Html::fill(text, &slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text from an attacker: markup, control characters, and too long.
    fn hostile() -> String {
        "\"'><script>{style}\u{1b}[31m\u{202e}".to_owned() + &"\"".repeat(500)
    }

    fn site() -> Site {
        Site {
            verify_path: "/cli-auth/device/verify".to_owned(),
            verify_url: "https://cli-auth.example.com/cli-auth/device/verify".to_owned(),
            server_host: "cli-auth.example.com".to_owned(),
            postiz_host: "platform.postiz.com".to_owned(),
            has_app: true,
        }
    }

    fn form() -> Form<'static> {
        Form {
            token: "0123456789abcdef".repeat(4),
            link_mac: "0123456789abcdef",
        }
    }

    fn every_page(hostile: &str) -> Vec<(&'static str, Page<'_>)> {
        let enter = |typed, problem| Page::EnterCode {
            form: form(),
            typed,
            problem,
        };
        let confirm = |client_address, client_agent, machine| Page::Confirm {
            form: form(),
            user_code: "WDJB-MJHT",
            client_address,
            client_agent,
            machine,
            age: Duration::from_secs(125),
        };
        let address_v6 = "2001:db8:85a3:8d3:1319:8a2e:370:7348";
        let unknown = Some(CodeProblem::Unknown);
        vec![
            ("enter-code", enter("", None)),
            ("enter-code-missing", enter("", Some(CodeProblem::Missing))),
            ("enter-code-unknown", enter("wdjb mjhh", unknown)),
            ("enter-code-hostile", enter(hostile, unknown)),
            ("no-cookie", enter("WDJB-MJHT", Some(CodeProblem::NoCookie))),
            (
                "confirm",
                confirm("203.0.113.7", "postiz/1.0.0 (linux)", "ada-laptop"),
            ),
            ("confirm-v6", confirm(address_v6, "node", "")),
            ("confirm-nameless", confirm("", "", "")),
            ("confirm-hostile", confirm(hostile, hostile, &hostile[..63])),
            ("signed-in", Page::Notice(texts::SIGNED_IN)),
            ("finishing", Page::Notice(texts::FINISHING)),
            ("login-over", Page::Notice(texts::LOGIN_OVER)),
            ("other-name", Page::Notice(texts::OTHER_NAME)),
            ("refused", Page::Notice(texts::REFUSED)),
            ("session-lost", Page::Notice(texts::SESSION_LOST)),
            ("cross-site", Page::Notice(texts::CROSS_SITE)),
            ("exchange-refused", Page::Notice(texts::EXCHANGE_REFUSED)),
            (
                "authorization-failed",
                Page::Notice(texts::AUTHORIZATION_FAILED),
            ),
            (
                "server-misconfigured",
                Page::Notice(texts::SERVER_MISCONFIGURED),
            ),
            ("unregistered", Page::Notice(texts::UNREGISTERED)),
            (
                "postiz-misconfigured",
                Page::Notice(texts::POSTIZ_MISCONFIGURED),
            ),
            ("relayed", Page::Notice(texts::RELAYED)),
            (
                "postiz-unreachable",
                Page::Notice(texts::POSTIZ_UNREACHABLE),
            ),
            ("too-many-tries", Page::Pause(texts::TOO_MANY_TRIES, 60)),
            (
                "too-many-callbacks",
                Page::Pause(texts::TOO_MANY_CALLBACKS, 60),
            ),
            ("unavailable", Page::Notice(texts::UNAVAILABLE)),
            ("not-found", Page::Notice(texts::NOT_FOUND)),
            ("internal-error", Page::Notice(texts::INTERNAL_ERROR)),
        ]
    }

    #[test]
    #[ignore = "it writes target/pages, for the browser tests"]
    fn gallery() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pages");
        std::fs::create_dir_all(folder).unwrap();
        for (name, page) in every_page(&hostile()) {
            let file = format!("{folder}/{name}.html");
            std::fs::write(file, page.render(&site(), Some("4f2a9c1e"))).unwrap();
        }
        let policy = format!("{folder}/content-security-policy");
        std::fs::write(policy, POLICY.as_str()).unwrap();
    }

    #[test]
    fn pages_are_complete_and_small() {
        let hostile = hostile();
        for (name, page) in every_page(&hostile) {
            let html = page.render(&site(), Some("4f2a9c1e"));
            assert!(html.len() < 6_100, "{} bytes: {name}", html.len());
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
            let html = page.render(&site(), Some("4f2a9c1e"));
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
        let who = who_asks(
            "203.0.113.7",
            "node",
            "ada-laptop",
            Duration::from_secs(125),
        );
        let html = confirm(&form(), "WDJB-MJHT", who, &site()).1.into_string();
        let form = html.split_once("<form ").expect("a form").1;
        for part in [
            r#"method="post" action="/cli-auth/device/verify""#,
            r#"<input type="hidden" name="user_code" value="WDJB-MJHT">"#,
            r#"<input type="hidden" name="mac" value="0123456789abcdef">"#,
            r#"name="action" value="continue""#,
            r#"name="action" value="deny""#,
        ] {
            assert!(form.contains(part), "{part}");
        }
        assert!(html.contains("WDJB-<wbr>MJHT") && html.contains("W D J B, M J H T"));
        assert!(html.contains("2 minutes ago") && html.contains("203.0.113.7"));
        assert!(html.contains("<dt>Machine</dt><dd>calls itself ada-laptop</dd>"));
    }

    #[test]
    fn confirm_page_warns_of_earlier_logins_if_there_is_an_app() {
        for has_app in [true, false] {
            let site = Site { has_app, ..site() };
            let page = confirm(&form(), "WDJB-MJHT", Html::default(), &site);
            let html = page.1.into_string();
            assert_eq!(html.contains("ends an earlier login"), has_app, "{html}");
        }
    }

    #[test]
    fn unknown_values_have_no_row() {
        let html = confirm(
            &form(),
            "WDJB-MJHT",
            who_asks("", "", "", Duration::ZERO),
            &site(),
        )
        .1;
        assert_eq!(html.into_string().matches("<dt>").count(), 1);
    }

    #[test]
    fn code_problem_is_announced_to_screen_readers() {
        let page = Page::EnterCode {
            form: form(),
            typed: "WDJB",
            problem: Some(CodeProblem::Unknown),
        };
        let html = page.render(&site(), Some("4f2a9c1e"));
        for part in [
            r#"<p id="about" role="alert">"#,
            r#"value="WDJB" aria-describedby="about hint" aria-invalid="true" autofocus"#,
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn program_name_has_name_and_version() {
        for agent in [
            "postiz/0.1.0",
            "postiz-rust/0.1.0 (linux x86_64)",
            "curl/8.5.0",
            "PostmanRuntime/7.43.0",
        ] {
            assert!(is_program_name(agent), "{agent}");
        }
        for agent in [
            "",
            "node",
            "Your account is locked. Call 555-0100/1 now",
            "evil.example/1.0",
            "a/b",
            "x/1 (go to evil.example now)",
            "x/1 (one two three four)",
            "x/1 (",
            "x/1 (a) b",
            "x/1\u{202e}",
            "<b>/1",
        ] {
            assert!(!is_program_name(agent), "{agent}");
        }
    }

    #[test]
    fn policy_allows_the_style_as_sent() {
        let html = Page::Notice(texts::SIGNED_IN).render(&site(), Some("4f2a9c1e"));
        let style = html
            .split_once("<style>")
            .and_then(|(_, rest)| rest.split_once("</style>"));
        assert_eq!(style.expect("a style").0, STYLE);
        assert!(POLICY.contains("style-src 'sha256-"));
        assert!(!POLICY.contains("unsafe"));
    }
}
