//! The flags of `auth:login`.

use crate::cli::command::{Flag, switch, value};

pub(super) static AUTH_SERVER: Flag = value(
    "auth-server",
    "URL",
    "the auth server; else POSTIZ_AUTH_SERVER, else https://cli-auth.postiz.com",
);

pub(super) static DIRECT: Flag = switch(
    "direct",
    "sign in at Postiz itself, without an auth server (newer than v2.23.0)",
);

pub(super) static NEW_CLIENT: Flag = switch(
    "new-client",
    "directly: register this machine anew (if its old entry was revoked)",
);

pub(crate) static NO_BROWSER: Flag = switch("no-browser", "do not open a browser");

pub(super) static QR: Flag = switch("qr", "also draw the address as a QR code, for a phone");

pub(super) static START: Flag = switch("start", "only ask for a code, print it and end");

pub(super) static FINISH: Flag = switch("finish", "wait for the login that --start began");

pub(super) static NO_WAIT: Flag = switch(
    "no-wait",
    "with --finish: ask once; exit 3 when it still waits",
);

pub(super) static ALLOW_HTTP: Flag = switch(
    "allow-http",
    "accept an API to which the token is sent unencrypted",
);

pub(super) static CLIENT_ID: Flag = value("client-id", "ID", "ignored: not needed");

pub(super) static CLIENT_SECRET: Flag = value("client-secret", "SECRET", "ignored: not needed");
