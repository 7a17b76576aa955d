//! `notifications`: Postiz' messages to the organisation, such as why posts failed.

use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, value};
use crate::cli::commands::common::{answer_of, page};

pub(crate) static NOTIFICATIONS: Command = Command {
    name: "notifications",
    about: "list notifications, such as why posts failed",
    positionals: &[],
    flags: &[&PAGE],
    notes: "Their texts come from Postiz and from the platforms.",
    examples: &["postiz notifications | jq -r '.notifications[].content'"],
    run: |context, options| {
        let call = Call::get(&["notifications"])?.query("page", page(options, &PAGE, 0)?);
        answer_of(context, &call)
    },
};

static PAGE: Flag = value("page", "N", "which page, from 0 (default: the newest 100)").short('p');
