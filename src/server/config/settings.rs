//! The table of all settings. The reader takes names, defaults and ranges from it, `--help` prints it, and tests compare the
//! handbook's table and the files in scripts/ with it.

use Kind::{Number, Secret, Text};

/// Name; default as in the handbook (a value in backticks, or words); kind of value; meaning.
type Setting = (&'static str, &'static str, Kind, &'static str);

/// The kind of a setting's value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// No message shows it. It may be in a file instead, whose path is in the variable of this name.
    Secret(&'static str),
    /// A number from the first to the second.
    Number(u64, u64),
}

const LIMIT: Kind = Number(0, 1_000_000_000);

#[rustfmt::skip] // A table is read row by row.
const SETTINGS: [Setting; 27] = [
    ("POSTIZ_OAUTH_CLIENT_ID", "none", Text, "the OAuth app made in Postiz; without one, each login registers a client of its own"),
    ("POSTIZ_OAUTH_CLIENT_SECRET", "none", Secret("POSTIZ_OAUTH_CLIENT_SECRET_FILE"), "its secret"),
    ("SERVER_SECRET", "the app's secret", Secret("SERVER_SECRET_FILE"), "protects tokens at rest and cookies; without an app the embedded store makes one in a file beside its own, and instances on PostgreSQL must share one"),
    ("SERVER_URL", "`http://localhost:{PORT}`", Text, "this server's public URL; a path is allowed"),
    ("HOST", "`::`", Text, "the address to listen on; `::` is all of them, IPv4 too"),
    ("PORT", "`3111`", Number(0, 65_535), "the port to listen on; 0 takes a free one, which the line \"listening on\" names"),
    ("DATABASE_URL", "the embedded store", Secret("DATABASE_URL_FILE"), "`postgres://…` as libpq means it for any number of instances, or `file:PATH` for one"),
    ("DATA_DIR", "`./data`", Text, "where the embedded store lives"),
    ("DATABASE_POOL_SIZE", "`8`", Number(1, 1_000), "most connections to PostgreSQL; a `connection_limit` in the URL wins"),
    ("POSTIZ_FRONTEND_URL", "`https://platform.postiz.com`", Text, "where the browser is sent to authorise"),
    ("POSTIZ_API_URL", "`https://api.postiz.com`", Text, "where codes are exchanged; a self-hosted Postiz: `https://host/api`"),
    ("POSTIZ_PUBLIC_API_URL", "`POSTIZ_API_URL`", Text, "the API URL that the CLI gets, if the server reaches Postiz by an internal name"),
    ("TRUSTED_PROXIES", "`127.0.0.0/8, ::1`", Text, "addresses and ranges whose `X-Forwarded-For` counts; `none` for nobody's"),
    ("TLS_CERT_FILE", "off", Text, "a PEM file with the certificate chain, to serve https; needs `TLS_KEY_FILE`"),
    ("TLS_KEY_FILE", "off", Text, "a PEM file with its key (PKCS#8, SEC1 or PKCS#1)"),
    ("LOG_FORMAT", "`text`", Text, "`text`, or `json`: one object a line. Always on stderr"),
    ("LOG_LEVEL", "`info`", Text, "the lowest level to write: `error`, `warn`, `info` or `debug` (pending polls and health checks, too)"),
    ("METRICS_LISTEN", "off", Text, "an address and port for Prometheus, such as `127.0.0.1:9464`: plain http, `/metrics`, without a password; port 0 takes a free one, which the line \"metrics listening\" names"),
    ("IDLE_TIMEOUT", "`75`", Number(1, 3_600), "seconds that a connection may idle between requests; set it above your load balancer's"),
    ("STOP_DELAY", "`0`", Number(0, 300), "seconds after SIGTERM in which `/ready` says that the server is stopping, before it stops accepting"),
    ("LIMIT_LOGINS_PER_MINUTE", "`30`", LIMIT, "logins that one address may start"),
    ("LIMIT_WRONG_CODES_PER_MINUTE", "`10`", LIMIT, "wrong codes that one address may enter"),
    ("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "`300`", LIMIT, "wrong codes from everywhere"),
    ("LIMIT_CALLBACKS_PER_MINUTE", "`60`", LIMIT, "callbacks from one address"),
    ("LIMIT_LIVE_LOGINS", "`100000`", LIMIT, "logins in the store at once, with the finished and expired ones that are not purged yet"),
    ("LIMIT_CONNECTIONS", "`1024`", Number(1, 100_000), "connections at once"),
    ("LIMIT_CONNECTIONS_PER_ADDRESS", "`64`", Number(0, 100_000), "connections at once from one address; trusted proxies do not count"),
];

/// The kind of a setting's value, and its default as text.
pub(super) fn setting(name: &str) -> (Kind, &'static str) {
    let found = SETTINGS.iter().find(|setting| setting.0 == name);
    let (_, default, kind, _) = found.expect("every test of the configuration reads all names");
    (*kind, default.trim_matches('`'))
}

/// All settings for `--help`.
pub fn help() -> String {
    let lines = SETTINGS.iter().map(|setting| {
        let (name, default) = (setting.0, setting.1);
        format!("  {name} [{default}]\n      {}\n", meaning(setting))
    });
    lines.collect::<String>().replace('`', "")
}

fn meaning((_, _, kind, meaning): &Setting) -> String {
    match kind {
        Secret(file) => format!("{meaning}; or `{file}`, a file that holds it"),
        _ => (*meaning).to_owned(),
    }
}

/// The names of all variables that are read.
fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().flat_map(|(name, _, kind, _)| match kind {
        Secret(file) => vec![*name, *file],
        _ => vec![*name],
    })
}

/// The variable that an unknown `name` probably misspells: by one letter too many, too few or wrong, or by two swapped ones.
/// `HOST` and `PORT` are too short to guess.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    let near = |ours: &&str| ours.len() > 4 && one_letter_away(ours.as_bytes(), name.as_bytes());
    let unknown = names().all(|ours| ours != name);
    names().find(near).filter(|_| unknown)
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
    fn handbook_table_is_the_settings() {
        let row = |setting: &Setting| {
            let (name, default) = (setting.0, setting.1);
            format!("| `{name}` | {default} | {} |\n", meaning(setting))
        };
        let rows: String = SETTINGS.iter().map(row).collect();
        let table = format!("| variable | default | meaning |\n| --- | --- | --- |\n{rows}\n");
        let handbook = include_str!("../../../scripts/README.md");
        assert!(
            handbook.contains(&table),
            "scripts/README.md should hold:\n{table}"
        );
    }

    /// Every word that looks like a variable's name, in comments too, is one.
    #[test]
    fn scripts_name_settings_that_exist() {
        let others = ["POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"];
        let others =
            others
                .into_iter()
                .chain(["CAP_NET_BIND_SERVICE", "RENEWED_LINEAGE", "POSTIZ_COMMIT"]);
        let known: Vec<_> = names().chain(others).collect();
        for (file, text) in [
            (
                "compose.yaml",
                include_str!("../../../scripts/compose.yaml"),
            ),
            (
                "kubernetes.yaml",
                include_str!("../../../scripts/kubernetes.yaml"),
            ),
            ("Dockerfile", include_str!("../../../scripts/Dockerfile")),
            (
                "Dockerfile.build",
                include_str!("../../../scripts/Dockerfile.build"),
            ),
            (
                "postiz-auth-server.service",
                include_str!("../../../scripts/postiz-auth-server.service"),
            ),
            (
                "https.conf",
                include_str!("../../../scripts/postiz-auth-server.service.d/https.conf"),
            ),
            (
                "postgresql-socket.conf",
                include_str!(
                    "../../../scripts/postiz-auth-server.service.d/postgresql-socket.conf"
                ),
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
    fn compose_passes_every_setting_through() {
        let compose = include_str!("../../../scripts/compose.yaml");
        for (name, _, kind, _) in SETTINGS {
            let (variable, file) = match kind {
                Secret(file) => (file, true),
                _ => (name, false),
            };
            let line = format!("\n      {variable}: ");
            let value = compose.split_once(&line).expect(variable).1;
            assert!(file || value.starts_with(&format!("${{{name}:")), "{name}");
        }
    }

    #[test]
    fn help_has_every_setting_and_its_default() {
        let help = help();
        for (name, ..) in SETTINGS {
            assert!(help.contains(&format!("  {name} [")), "{help}");
        }
        assert!(help.contains("PORT [3111]\n"), "{help}");
        assert!(help.contains("; or DATABASE_URL_FILE, a file"), "{help}");
    }

    #[test]
    fn misspelt_names_are_recognised() {
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
