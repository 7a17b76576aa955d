//! The flags of `auth:login`.

use crate::cli::command::{Flag, Takes, flag};

pub(super) static AUTH_SERVER: Flag = flag(
    "auth-server",
    None,
    Takes::Value("URL"),
    "the auth server; else POSTIZ_AUTH_SERVER, else https://cli-auth.postiz.com",
);

pub(super) static DIRECT: Flag = flag(
    "direct",
    None,
    Takes::Nothing,
    "sign in at Postiz itself, without an auth server (newer than v2.23.0)",
);

pub(super) static NEW_CLIENT: Flag = flag(
    "new-client",
    None,
    Takes::Nothing,
    "directly: register this machine anew (if its old entry was revoked)",
);

pub(crate) static NO_BROWSER: Flag =
    flag("no-browser", None, Takes::Nothing, "do not open a browser");

pub(super) static QR: Flag = flag(
    "qr",
    None,
    Takes::Nothing,
    "also draw the address as a QR code, for a phone",
);

pub(super) static START: Flag = flag(
    "start",
    None,
    Takes::Nothing,
    "only ask for a code, print it and end",
);

pub(super) static FINISH: Flag = flag(
    "finish",
    None,
    Takes::Nothing,
    "wait for the login that --start began",
);

pub(super) static NO_WAIT: Flag = flag(
    "no-wait",
    None,
    Takes::Nothing,
    "with --finish: ask once; exit 3 when it still waits",
);

pub(super) static ALLOW_HTTP: Flag = flag(
    "allow-http",
    None,
    Takes::Nothing,
    "take an API that the token reaches unencrypted",
);

pub(super) static CLIENT_ID: Flag =
    flag("client-id", None, Takes::Value("ID"), "ignored: not needed");

pub(super) static CLIENT_SECRET: Flag = flag(
    "client-secret",
    None,
    Takes::Value("SECRET"),
    "ignored: not needed",
);
