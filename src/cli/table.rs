//! The one table of commands: names, flags, help and examples. Parsing (args.rs), help.rs and completions.rs all read it.

use crate::cli::args::Options;
use crate::cli::commands::{analytics, api, auth, completions, integrations, login, posts, upload};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

/// A command as users know it.
pub(crate) struct Command {
    /// `posts:create`; `posts create` means the same.
    pub(crate) name: &'static str,
    /// One line for the overview.
    pub(crate) about: &'static str,
    pub(crate) positionals: &'static [Positional],
    pub(crate) flags: &'static [&'static Flag],
    /// What the flags' lines do not say.
    pub(crate) notes: &'static str,
    /// Command lines that work as they stand, with `$CHANNEL` and `$POST` set to IDs.
    pub(crate) examples: &'static [&'static str],
    pub(crate) run: fn(&mut Context, &Options) -> Result<Exit, CliError>,
}

/// An argument known by its place. All are required.
pub(crate) struct Positional {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// One or more of it.
    pub(crate) many: bool,
}

/// A flag, spelled in camelCase or kebab-case by whoever named it first; users may type both.
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) repeatable: bool,
    pub(crate) about: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing.
    Nothing,
    /// Nothing, `=true` or `=false`; `--no-…` turns it off.
    YesNo,
    /// A value, shown in help under this name.
    Value(&'static str),
    /// A path, which need not be UTF-8.
    Path,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Takes {
    /// The value's name in help.
    pub(crate) fn value_name(&self) -> String {
        match self {
            Takes::Nothing | Takes::YesNo => String::new(),
            Takes::Value(name) => (*name).to_owned(),
            Takes::Path => "FILE".to_owned(),
            Takes::OneOf(words) => words.join("|"),
        }
    }
}

const fn flag(long: &'static str, short: Option<char>, takes: Takes, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes,
        repeatable: false,
        about,
    }
}

const fn repeatable(flag: Flag) -> Flag {
    Flag {
        repeatable: true,
        ..flag
    }
}

const fn one(name: &'static str, about: &'static str) -> Positional {
    Positional {
        name,
        about,
        many: false,
    }
}

const fn many(name: &'static str, about: &'static str) -> Positional {
    Positional {
        name,
        about,
        many: true,
    }
}

use Takes::{Nothing, OneOf, Path, Value, YesNo};

// Flags of the auth commands.
pub(crate) static AUTH_SERVER: Flag = flag(
    "auth-server",
    None,
    Value("URL"),
    "the auth server; else POSTIZ_AUTH_SERVER, else https://cli-auth.postiz.com",
);
pub(crate) static NO_BROWSER: Flag = flag("no-browser", None, Nothing, "do not open a browser");
pub(crate) static QR: Flag = flag(
    "qr",
    None,
    Nothing,
    "also draw the address as a QR code, for a phone",
);
pub(crate) static ALLOW_HTTP: Flag = flag(
    "allow-http",
    None,
    Nothing,
    "take an API that the token reaches unencrypted",
);
pub(crate) static CLIENT_ID: Flag = flag("client-id", None, Value("ID"), "ignored: not needed");
pub(crate) static CLIENT_SECRET: Flag = flag(
    "client-secret",
    None,
    Value("SECRET"),
    "ignored: not needed",
);
pub(crate) static AS_JSON: Flag = flag("json", None, Nothing, "print JSON for programs on stdout");
pub(crate) static START: Flag = flag(
    "start",
    None,
    Nothing,
    "only ask for a code, print it and end",
);
pub(crate) static FINISH: Flag = flag(
    "finish",
    None,
    Nothing,
    "wait for the login that --start began",
);
pub(crate) static NO_WAIT: Flag = flag(
    "no-wait",
    None,
    Nothing,
    "with --finish: ask once; exit 3 when it still waits",
);

// Flags of posts:create.
pub(crate) static CONTENT: Flag = repeatable(flag(
    "content",
    Some('c'),
    Value("TEXT"),
    "the text of the post; repeat it for a thread",
));
pub(crate) static MEDIA: Flag = repeatable(flag(
    "media",
    Some('m'),
    Value("URLS"),
    "comma-separated media of the -c before it; may be repeated",
));
pub(crate) static INTEGRATIONS: Flag = repeatable(flag(
    "integrations",
    Some('i'),
    Value("IDS"),
    "comma-separated channel IDs; may be repeated",
));
pub(crate) static DATE: Flag = flag(
    "date",
    Some('s'),
    Value("DATE"),
    "when to publish: ISO 8601, UTC unless it names a zone",
);
pub(crate) static TYPE: Flag = flag(
    "type",
    Some('t'),
    OneOf(&["schedule", "draft", "now"]),
    "what to do with it (default: schedule)",
);
pub(crate) static DELAY: Flag = flag(
    "delay",
    Some('d'),
    Value("MINUTES"),
    "minutes between the parts of a thread (default: 0)",
);
pub(crate) static SETTINGS: Flag = flag(
    "settings",
    None,
    Value("JSON"),
    "the platform's settings, a JSON object",
);
pub(crate) static SHORT_LINK: Flag = flag(
    "shortLink",
    None,
    YesNo,
    "shorten links (default); --no-shortLink keeps them",
);
pub(crate) static POST_FILE: Flag = flag(
    "json",
    Some('j'),
    Path,
    "send this JSON file as it is (- is stdin); excludes the rest",
);

// Flags of the other commands.
pub(crate) static START_DATE: Flag = flag(
    "startDate",
    None,
    Value("DATE"),
    "from this date (default: 30 days back)",
);
pub(crate) static END_DATE: Flag = flag(
    "endDate",
    None,
    Value("DATE"),
    "to this date (default: 30 days ahead)",
);
pub(crate) static CUSTOMER: Flag = flag(
    "customer",
    None,
    Value("ID"),
    "only posts of this customer (group)",
);
pub(crate) static STATUS: Flag = flag(
    "status",
    Some('s'),
    OneOf(&["draft", "schedule"]),
    "the new status (required)",
);
pub(crate) static RELEASE_ID: Flag = flag(
    "release-id",
    None,
    Value("ID"),
    "the ID of the published post on its platform (required)",
);
pub(crate) static GROUP: Flag = flag(
    "group",
    None,
    Value("ID"),
    "only channels of this group (customer)",
);
pub(crate) static TRIGGER_DATA: Flag = flag(
    "data",
    Some('d'),
    Value("JSON"),
    "what the method wants to know (default: {})",
);
pub(crate) static DAYS: Flag = flag(
    "date",
    Some('d'),
    Value("DAYS"),
    "how many days back (default: 7)",
);
pub(crate) static NAME: Flag = flag(
    "name",
    None,
    Value("NAME"),
    "the file's name, when it comes from stdin (-)",
);
pub(crate) static BODY: Flag = flag(
    "data",
    Some('d'),
    Value("JSON|@FILE|-"),
    "the request's body: JSON, @FILE, or - for stdin",
);

/// Every command, in the order of the overview.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "auth:login",
        about: "sign in with a browser, here or on another device",
        positionals: &[],
        flags: &[&AUTH_SERVER, &NO_BROWSER, &QR, &AS_JSON, &START, &FINISH, &NO_WAIT, &ALLOW_HTTP, &CLIENT_ID, &CLIENT_SECRET],
        notes: "\
Shows a code and a page's address, opens the page, and waits until you have confirmed the code there.
The credentials go to ~/.postiz/credentials.json, or where POSTIZ_CREDENTIALS_FILE says.

For agents: --start prints the code as JSON and ends; --finish waits for the user and signs in. With --json,
--start and --finish, stdout gets one JSON object a line: the events code, pending, done and error.",
        examples: &[
            "postiz auth:login",
            "postiz auth:login --auth-server https://auth.example.com --no-browser",
            "postiz auth:login --start && postiz auth:login --finish --no-wait",
        ],
        run: login::login,
    },
    Command {
        name: "auth:status",
        about: "say who is signed in, and check it with Postiz",
        positionals: &[],
        flags: &[&AS_JSON],
        notes: "Exit code 0: valid. 4: not signed in, or refused. 1: could not be checked.",
        examples: &["postiz auth:status", "postiz auth:status --json | jq -r .method"],
        run: auth::status,
    },
    Command {
        name: "auth:logout",
        about: "remove the stored credentials",
        positionals: &[],
        flags: &[&AS_JSON],
        notes: "The token itself is revoked in Postiz: Settings > Approved Apps.",
        examples: &["postiz auth:logout"],
        run: auth::logout,
    },
    Command {
        name: "auth:token",
        about: "print the credential in use, for scripts",
        positionals: &[],
        flags: &[],
        notes: "",
        examples: &["curl -s -H \"Authorization: $(postiz auth:token)\" \"$POSTIZ_API_URL/public/v1/integrations\" | jq length"],
        run: auth::token,
    },
    Command {
        name: "posts:create",
        about: "schedule, publish or draft a post",
        positionals: &[],
        flags: &[&CONTENT, &MEDIA, &INTEGRATIONS, &DATE, &TYPE, &DELAY, &SETTINGS, &SHORT_LINK, &POST_FILE],
        notes: "\
Each -m belongs to the -c before it. When all -m stand after the last of several -c, they pair up in order, and
-m \"\" skips a part. A part may have no text (-c \"\") only if it has media.",
        examples: &[
            "postiz posts:create -c \"Hello\" -s 2030-01-15T10:00:00Z -i \"$CHANNEL\"",
            "postiz posts:create -c \"First\" -m https://example.com/a.png -c \"- then this\" -d 5 -s 2030-01-15T10:00:00Z -i \"$CHANNEL\" | jq -r '.[0].postId'",
            "postiz posts:create --json post.json",
        ],
        run: posts::create,
    },
    Command {
        name: "posts:list",
        about: "list posts",
        positionals: &[],
        flags: &[&START_DATE, &END_DATE, &CUSTOMER],
        notes: "",
        examples: &["postiz posts:list --startDate 2030-01-01T00:00:00Z --endDate 2030-01-31T23:59:59Z | jq -r '.posts[].id'"],
        run: posts::list,
    },
    Command {
        name: "posts:delete",
        about: "delete a post, with all of its group",
        positionals: &[POST_ID],
        flags: &[],
        notes: "Postiz answers {\"error\": true} when it has deleted the post; the exit code is what counts.",
        examples: &["postiz posts:delete \"$POST\""],
        run: posts::delete,
    },
    Command {
        name: "posts:status",
        about: "turn a post into a draft, or schedule it",
        positionals: &[POST_ID],
        flags: &[&STATUS],
        notes: "",
        examples: &["postiz posts:status \"$POST\" --status draft"],
        run: posts::status,
    },
    Command {
        name: "posts:settings",
        about: "change the platform's settings of a post",
        positionals: &[POST_ID],
        flags: &[&SETTINGS],
        notes: "--settings is required; Postiz merges it into what the post has.",
        examples: &["postiz posts:settings \"$POST\" --settings '{\"who_can_reply_post\":\"everyone\"}'"],
        run: posts::settings,
    },
    Command {
        name: "posts:missing",
        about: "list content that may be a published post whose ID got lost",
        positionals: &[POST_ID],
        flags: &[],
        notes: "",
        examples: &["postiz posts:missing \"$POST\" | jq -r '.[].id'"],
        run: posts::missing,
    },
    Command {
        name: "posts:connect",
        about: "tell Postiz which published post this one is",
        positionals: &[POST_ID],
        flags: &[&RELEASE_ID],
        notes: "",
        examples: &["postiz posts:connect \"$POST\" --release-id 7321456789012345678"],
        run: posts::connect,
    },
    Command {
        name: "integrations:list",
        about: "list the connected channels",
        positionals: &[],
        flags: &[&GROUP],
        notes: "",
        examples: &["postiz integrations:list | jq -r '.[] | \"\\(.id) \\(.name)\"'"],
        run: integrations::list,
    },
    Command {
        name: "integrations:groups",
        about: "list the groups (customers) that channels belong to",
        positionals: &[],
        flags: &[],
        notes: "",
        examples: &["postiz integrations:groups | jq -r '.[].id'"],
        run: integrations::groups,
    },
    Command {
        name: "integrations:settings",
        about: "show a channel's rules, settings and tools",
        positionals: &[INTEGRATION_ID],
        flags: &[],
        notes: "",
        examples: &["postiz integrations:settings \"$CHANNEL\" | jq .output.maxLength"],
        run: integrations::settings,
    },
    Command {
        name: "integrations:trigger",
        about: "run one of a channel's tools",
        positionals: &[INTEGRATION_ID, one("method", "the tool's methodName")],
        flags: &[&TRIGGER_DATA],
        notes: "",
        examples: &["postiz integrations:trigger \"$CHANNEL\" channels -d '{\"limit\":\"10\"}' | jq .output"],
        run: integrations::trigger,
    },
    Command {
        name: "analytics:platform",
        about: "show a channel's numbers",
        positionals: &[INTEGRATION_ID],
        flags: &[&DAYS],
        notes: "",
        examples: &["postiz analytics:platform \"$CHANNEL\" -d 30 | jq -r '.[].label'"],
        run: analytics::platform,
    },
    Command {
        name: "analytics:post",
        about: "show a post's numbers",
        positionals: &[POST_ID],
        flags: &[&DAYS],
        notes: "",
        examples: &["postiz analytics:post \"$POST\" -d 30"],
        run: analytics::post,
    },
    Command {
        name: "upload",
        about: "upload files, to use them in posts",
        positionals: &[many("file", "a file's path; - is stdin")],
        flags: &[&NAME],
        notes: "One file gives its record, several give an array. Files are sent one after another, straight from the disk.",
        examples: &[
            "postiz upload photo.png | jq -r .path",
            "postiz upload - --name photo.png < photo.png",
        ],
        run: upload::upload,
    },
    Command {
        name: "api",
        about: "send any request to the Postiz API",
        positionals: &[
            one("method", "GET, POST, PUT, PATCH, DELETE or HEAD"),
            one("path", "the path under the API URL, with its query"),
        ],
        flags: &[&BODY],
        notes: "Prints the answer's body as it is.",
        examples: &[
            "postiz api GET /public/v1/is-connected",
            "postiz api PUT \"/public/v1/posts/$POST/status\" -d '{\"status\":\"draft\"}' | jq -r .state",
        ],
        run: api::any,
    },
    Command {
        name: "completions",
        about: "print a script that completes commands and flags",
        positionals: &[one("shell", "bash, zsh or fish")],
        flags: &[],
        notes: "",
        examples: &["eval \"$(postiz completions bash)\""],
        run: completions::print,
    },
];

const POST_ID: Positional = one("id", "the post's ID");
const INTEGRATION_ID: Positional = one("id", "the channel's ID");

/// The command with this exact name.
pub(crate) fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The words before a colon: `auth`, `posts`, …
pub(crate) fn group_of(name: &str) -> Option<&str> {
    name.split_once(':').map(|(group, _)| group)
}

/// Has any command this group?
pub(crate) fn is_group(word: &str) -> bool {
    COMMANDS
        .iter()
        .any(|command| group_of(command.name) == Some(word))
}
