//! Every setting as data. The parser takes names, defaults and ranges from here, `--help` is made from it, and tests compare
//! README's table and the files in scripts/ with it.

use std::fmt;

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// What holds where it is not set.
    pub default: Unset,
    /// What may stand in it.
    pub kind: Kind,
    /// What it is for, in a few words of Markdown.
    pub meaning: &'static str,
}

/// What holds where a variable is not set.
#[derive(Clone, Copy, Debug)]
pub enum Unset {
    /// Nothing: the server does not start.
    Required,
    /// This value.
    Is(&'static str),
    /// What these words say.
    Means(&'static str),
}

/// What may stand in a variable.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that no message shows, and that may stand in the file which the variable of this name holds the path of.
    Secret(&'static str),
    /// An `http://` or `https://` URL.
    Url,
    /// The path of a file or folder.
    Path,
    /// An IP address.
    Address,
    /// Addresses and ranges.
    Addresses,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A whole number of seconds, likewise.
    Seconds(u64, u64),
}

use Kind::{Address, Addresses, Number, Path, Seconds, Secret, Text, Url, Word};
use Unset::{Is, Means, Required};

const LIMIT: Kind = Number(0, 1_000_000_000);

/// All of them, in the order in which people are told about them.
#[rustfmt::skip] // A table is read row by row.
pub const SETTINGS: &[Setting] = &[
    row("POSTIZ_OAUTH_CLIENT_ID", Required, Text, "the OAuth app made in Postiz"),
    row("POSTIZ_OAUTH_CLIENT_SECRET", Required, Secret("POSTIZ_OAUTH_CLIENT_SECRET_FILE"), "its secret"),
    row("SERVER_URL", Means("`http://localhost:{PORT}`"), Url, "this server's public URL; a path is allowed"),
    row("HOST", Is("::"), Address, "the address to listen on; `::` is all of them, IPv4 too"),
    row("PORT", Is("3111"), Number(0, 65_535), "the port to listen on; 0 takes a free one, which the line \"listening on\" names"),
    row("DATABASE_URL", Means("the embedded store"), Secret("DATABASE_URL_FILE"), "`postgres://…` (with `sslmode` and `sslrootcert` as libpq means them) for any number of instances, or `file:PATH` for one"),
    row("DATA_DIR", Is("./data"), Path, "where the embedded store lives"),
    row("DATABASE_POOL_SIZE", Is("8"), Number(1, 1_000), "most connections to PostgreSQL"),
    row("POSTIZ_FRONTEND_URL", Is("https://platform.postiz.com"), Url, "where the browser is sent to authorise"),
    row("POSTIZ_API_URL", Is("https://api.postiz.com"), Url, "where codes are exchanged; a self-hosted Postiz: `https://host/api`"),
    row("POSTIZ_PUBLIC_API_URL", Means("`POSTIZ_API_URL`"), Url, "what the CLI is told as API URL, for servers that reach Postiz by an internal name"),
    row("TRUSTED_PROXIES", Is("127.0.0.0/8, ::1"), Addresses, "addresses and ranges whose `X-Forwarded-For` counts; `none` for nobody's"),
    row("TLS_CERT_FILE", Means("off"), Path, "a PEM file with the certificate chain, to serve https; needs `TLS_KEY_FILE`"),
    row("TLS_KEY_FILE", Means("off"), Path, "a PEM file with its key (PKCS#8, SEC1 or PKCS#1)"),
    row("LOG_FORMAT", Is("text"), Word(&["text", "json"]), "`text`, or `json`: one object a line. Always on stderr"),
    row("IDLE_TIMEOUT", Is("75"), Seconds(1, 3_600), "seconds that a connection may idle between requests; set it above your load balancer's"),
    row("STOP_DELAY", Is("0"), Seconds(0, 300), "seconds after SIGTERM in which `/ready` says that the server is stopping, before it stops accepting"),
    row("LIMIT_LOGINS_PER_MINUTE", Is("30"), LIMIT, "logins that one address (one IPv6 /64) may start"),
    row("LIMIT_WRONG_CODES_PER_MINUTE", Is("10"), LIMIT, "wrong codes that one address may enter"),
    row("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", Is("300"), LIMIT, "wrong codes from everywhere"),
    row("LIMIT_CALLBACKS_PER_MINUTE", Is("60"), LIMIT, "callbacks from one address"),
    row("LIMIT_LIVE_LOGINS", Is("100000"), LIMIT, "logins kept at once"),
    row("LIMIT_CONNECTIONS", Is("1024"), Number(1, 100_000), "connections at once"),
    row("LIMIT_CONNECTIONS_PER_ADDRESS", Is("64"), Number(0, 100_000), "connections at once from one address; trusted proxies do not count"),
];

const fn row(name: &'static str, default: Unset, kind: Kind, meaning: &'static str) -> Setting {
    Setting {
        name,
        default,
        kind,
        meaning,
    }
}

impl Setting {
    /// The setting of this name, which has to be one of ours.
    pub(super) fn named(name: &str) -> &'static Setting {
        let found = SETTINGS.iter().find(|setting| setting.name == name);
        found.expect(
            "every configuration reads every setting, so that a test finds a name that is none",
        )
    }

    /// The variable that may name a file with the value.
    pub fn file(&self) -> Option<&'static str> {
        match self.kind {
            Secret(file) => Some(file),
            _ => None,
        }
    }

    /// Its value may not be shown.
    pub fn is_secret(&self) -> bool {
        self.file().is_some()
    }
}

/// The setting for people who read Markdown: default and meaning, as two cells of README's table.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.default {
            Required => f.write_str("required")?,
            Is(value) => write!(f, "`{value}`")?,
            Means(words) => f.write_str(words)?,
        }
        write!(f, " | {}", self.meaning)?;
        match self.file() {
            Some(file) => write!(f, "; or `{file}`, a file that holds it"),
            None => Ok(()),
        }
    }
}

/// All settings for `--help`.
pub fn help() -> String {
    let lines = SETTINGS.iter().map(|setting| {
        let text = setting.to_string().replace('`', "");
        let (default, meaning) = text.split_once(" | ").unwrap_or_default();
        format!("  {} [{default}]\n      {meaning}\n", setting.name)
    });
    lines.collect()
}

/// The names of ours that the unknown `name` may be a slip of the hand for: one letter too many, too few, other, or two
/// that changed places. `HOST` and `PORT` are too short to tell.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    let files = SETTINGS.iter().filter_map(Setting::file);
    let mut names = SETTINGS.iter().map(|setting| setting.name).chain(files);
    if names.clone().any(|ours| ours == name) {
        return None;
    }
    names.find(|ours| ours.len() > 4 && one_letter_away(ours.as_bytes(), name.as_bytes()))
}

fn one_letter_away(a: &[u8], b: &[u8]) -> bool {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(a, b)| a == b);
    let end = end.count();
    match (&a[..a.len() - end], &b[..b.len() - end]) {
        ([] | [_], [] | [_]) => true,
        ([a1, a2], [b1, b2]) => a1 == b2 && a2 == b1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_table_is_the_settings() {
        let rows: String = SETTINGS
            .iter()
            .map(|setting| format!("| `{}` | {setting} |\n", setting.name))
            .collect();
        let table = format!("| variable | default | meaning |\n| --- | --- | --- |\n{rows}\n");
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&table), "README.md should hold:\n{table}");
    }

    /// In variables and in comments: whatever looks like a variable's name is one.
    #[test]
    fn scripts_name_settings_that_exist() {
        let others = ["POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"];
        let files = SETTINGS.iter().filter_map(Setting::file);
        let ours = SETTINGS.iter().map(|setting| setting.name).chain(files);
        let known: Vec<_> = ours.chain(others).collect();
        for (file, text) in [
            (
                "compose.yaml",
                include_str!("../../../scripts/compose.yaml"),
            ),
            ("Dockerfile", include_str!("../../../scripts/Dockerfile")),
            (
                "postiz-auth-server.service",
                include_str!("../../../scripts/postiz-auth-server.service"),
            ),
        ] {
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let names: Vec<_> = text
                .split(|c| !is_name(c))
                .filter(|word| word.trim_matches('_').contains('_') && !word.starts_with("AF_"))
                .collect();
            assert!(
                names
                    .iter()
                    .any(|name| *name == "DATA_DIR" || *name == "SERVER_URL")
            );
            for name in names {
                assert!(known.contains(&name), "{file} names {name}");
            }
        }
    }

    #[test]
    fn slips_of_the_hand_are_recognised() {
        for (typed, meant) in [
            ("POSTIZ_API_ULR", Some("POSTIZ_API_URL")),
            ("POSTIZ_API_UR", Some("POSTIZ_API_URL")),
            ("POSTIZ_APIS_URL", Some("POSTIZ_API_URL")),
            ("POSTIZ_API_URI", Some("POSTIZ_API_URL")),
            ("LIMITS_CONNECTIONS", Some("LIMIT_CONNECTIONS")),
            ("TURSTED_PROXIES", Some("TRUSTED_PROXIES")),
            ("DATABASE_URLFILE", Some("DATABASE_URL_FILE")),
            ("POSTIZ_API_URL", None),
            ("POSTIZ_API_KEY", None),
            ("POSTIZ_AUTH_SERVER", None),
            ("POSTGRES_PASSWORD", None),
            ("POST", None),
            ("", None),
        ] {
            assert_eq!(meant_by(typed), meant, "{typed}");
        }
    }
}
