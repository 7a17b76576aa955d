//! `media:list`: the files that were uploaded.

use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, value};
use crate::cli::commands::common::{PAGE, answer_of, page};

pub(crate) static LIST: Command = Command {
    name: "media:list",
    about: "list the media library, 18 files a page",
    positionals: &[],
    flags: &[&SEARCH, &PAGE],
    notes: "--search looks at the original name, which files sent by `postiz upload` do not have.",
    examples: &[
        "postiz media:list | jq -r '.results[].path'",
        "postiz media:list --search photo --page 1 | jq .pages",
    ],
    run: |context, options| {
        let page = page(options, &PAGE, 1)?.unwrap_or("1");
        let call = Call::get(&["media"])?.query("page", page);
        answer_of(context, &call.query("search", options.text(&SEARCH)?))
    },
};

static SEARCH: Flag = value(
    "search",
    "TEXT",
    "only files with this in their original name",
)
.short('s');
