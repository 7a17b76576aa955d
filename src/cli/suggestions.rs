//! Guesses what a mistyped command or flag was meant to be. A command that changes something is suggested only for a
//! misspelling of its own name, since people and agents run what a hint says.

use crate::cli::command::{Command, Commands, kebab};

/// The hint for a command that does not exist.
pub(crate) fn for_command(commands: Commands, typed: &str) -> String {
    let typed = typed.to_lowercase();
    let mut parts: Vec<&str> = typed.split(':').map(meaning_of).collect();
    if let Some(whole) = parts.iter().find(|part| part.contains(':')) {
        return did_you_mean(&[whole]);
    }
    // `channels` means the command that lists them.
    if parts.len() == 1 && commands.group(parts[0]).is_some() {
        parts.push("list");
    }
    let mut groups = commands.iter().filter_map(Command::group);
    let group = groups.find(|group| misspelt(parts[0], group, MISSPELT_MAX).is_some());
    let found = likeliest(commands, &parts);
    match group {
        // `post` means the group `posts` rather than the command `analytics:post`.
        Some(group) if parts.len() == 1 || found.is_empty() => {
            format!("`postiz {group} --help` lists what can follow")
        }
        _ if found.is_empty() => SEE_OVERVIEW.to_owned(),
        _ => did_you_mean(&found),
    }
}

/// The flag among `names` that is nearest to `typed`, if one is near.
pub(crate) fn nearest_flag<'a>(
    typed: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let letters_max = letters_max(typed);
    let near = names.filter_map(|name| {
        misspelt(typed, &kebab(name), letters_max).map(|letters| (letters, name))
    });
    near.min_by_key(|(letters, _)| *letters)
        .map(|(_, name)| name)
}

/// The nearest commands; of these only the ones that read, if there are any.
fn likeliest(commands: Commands, parts: &[&str]) -> Vec<&'static str> {
    let scored: Vec<(usize, &str)> = commands
        .iter()
        .filter_map(|command| Some((score(commands, parts, command.name)?, command.name)))
        .collect();
    let best = scored.iter().map(|(score, _)| *score).min();
    let nearest = scored.into_iter().filter(|(score, _)| Some(*score) == best);
    let mut names: Vec<&str> = nearest.map(|(_, name)| name).collect();
    if names.iter().any(|name| READ_ONLY.contains(name)) {
        names.retain(|name| READ_ONLY.contains(name));
    }
    names
}

/// The distance between what was typed and the command `name`; `None` when they are not near.
fn score(commands: Commands, parts: &[&str], name: &str) -> Option<usize> {
    let (group, action) = name.split_once(':').unwrap_or(("", name));
    let only_reads = READ_ONLY.contains(&name);
    let near = |typed: &str| {
        let letters_max = if only_reads {
            letters_max(typed)
        } else {
            MISSPELT_MAX
        };
        misspelt(typed, action, letters_max)
    };
    match parts {
        [] => None,
        [only] => near(only),
        [first, .., last] => {
            let by_group = misspelt(first, group, MISSPELT_MAX).unwrap_or(OTHER_GROUP);
            let by_last = near(last).map(|letters| letters + by_group);
            // `groups:list` means `integrations:groups` rather than another group's `list`.
            let by_first = OTHER_GROUP - usize::from(only_reads);
            let first_names_it = || near(first).filter(|_| commands.group(first).is_none());
            by_last.or_else(|| first_names_it().map(|letters| letters + by_first))
        }
    }
}

/// How many letters of `typed` are wrong when it stands for `word` or its beginning; `None` when it does not.
fn misspelt(typed: &str, word: &str, letters_max: usize) -> Option<usize> {
    if typed.chars().count() > 1 && word.starts_with(typed) {
        return Some(usize::from(typed != word));
    }
    Some(edit_distance(typed, word)).filter(|letters| *letters <= letters_max && !typed.is_empty())
}

fn letters_max(typed: &str) -> usize {
    MISSPELT_MAX + typed.chars().count() / 4
}

/// The edit distance between `a` and `b`: letters inserted, deleted, replaced, or swapped with the next (Damerau-Levenshtein,
/// optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn did_you_mean(names: &[&str]) -> String {
    let names = names.iter().map(|name| format!("`postiz {name}`"));
    let names: Vec<String> = names.collect();
    format!("did you mean {}?", names.join(" or "))
}

/// Our word for `word`.
fn meaning_of(word: &str) -> &str {
    let meant = MEANINGS.iter().find(|(other, _)| *other == word);
    meant.map_or(word, |(_, ours)| *ours)
}

/// Words that other programs use, and ours for them.
const MEANINGS: &[(&str, &str)] = &[
    ("whoami", "auth:status"),
    ("me", "auth:status"),
    ("signin", "auth:login"),
    ("signout", "auth:logout"),
    ("stats", "analytics:post"),
    ("channels", "integrations"),
    ("accounts", "integrations"),
    ("channel", "integrations"),
    ("customers", "groups"),
    ("get", "list"),
    ("show", "list"),
    ("view", "list"),
    ("search", "list"),
    ("ls", "list"),
    ("edit", "update"),
    ("remove", "delete"),
    ("rm", "delete"),
    ("new", "create"),
    ("schedule", "create"),
    ("publish", "create"),
];

/// The commands that change neither anything in Postiz nor the login. All others count as writing.
const READ_ONLY: &[&str] = &[
    "auth:status",
    "auth:token",
    "posts:list",
    "posts:missing",
    "integrations:list",
    "integrations:groups",
    "integrations:settings",
    "integrations:connect",
    "integrations:slot",
    "analytics:platform",
    "analytics:post",
    "media:list",
    "clipping:list",
    "clipping:status",
    "notifications",
    "completions",
    "skill",
    "man",
];

/// How many letters may be wrong in the name of a command that writes; more in longer names of others.
const MISSPELT_MAX: usize = 1;

/// The distance that a wrong group adds: more than any misspelling of the right one.
const OTHER_GROUP: usize = 4;

/// The hint where nothing is near.
pub(crate) const SEE_OVERVIEW: &str = "`postiz --help` lists the commands";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::COMMANDS;

    #[test]
    fn suggestions_name_what_was_meant() {
        for (typed, hint) in [
            ("post:list", "did you mean `postiz posts:list`?"),
            ("posts:lst", "did you mean `postiz posts:list`?"),
            ("Posts:List", "did you mean `postiz posts:list`?"),
            ("uplaod", "did you mean `postiz upload`?"),
            ("upl", "did you mean `postiz upload`?"),
            ("posts:upload", "did you mean `postiz upload`?"),
            ("login", "did you mean `postiz auth:login`?"),
            ("posts:login", "did you mean `postiz auth:login`?"),
            ("whoami", "did you mean `postiz auth:status`?"),
            ("groups", "did you mean `postiz integrations:groups`?"),
            ("groups:list", "did you mean `postiz integrations:groups`?"),
            ("posts:groups", "did you mean `postiz integrations:groups`?"),
            ("channels", "did you mean `postiz integrations:list`?"),
            (
                "channels:settings",
                "did you mean `postiz integrations:settings`?",
            ),
            ("posts:craete", "did you mean `postiz posts:create`?"),
            ("posts:rm", "did you mean `postiz posts:delete`?"),
            ("post:status", "did you mean `postiz posts:status`?"),
            (
                "posts:frobnicate",
                "`postiz posts --help` lists what can follow",
            ),
            ("post", "`postiz posts --help` lists what can follow"),
            ("foo:bar", SEE_OVERVIEW),
            ("", SEE_OVERVIEW),
            (":", SEE_OVERVIEW),
            ("a:b:c:d", SEE_OVERVIEW),
        ] {
            assert_eq!(for_command(COMMANDS, typed), hint, "{typed}");
        }
    }

    /// A mistyped request to read something never leads to a command that writes.
    #[test]
    fn suggestions_for_reading_never_write() {
        let words = "status settings connect get posts:get posts:show posts:read posts:stats posts:state posts:relate \
                     posts:credits posts:date posts:meet list delte:list posts:context upload:list clipping:get \
                     posts:whoami integrations:get posts:select posts:listing posts:settle auth:logs";
        for typed in words.split_whitespace() {
            let hint = for_command(COMMANDS, typed);
            let named = COMMANDS
                .iter()
                .filter(|command| hint.contains(&format!("`postiz {}`", command.name)));
            for command in named {
                assert!(READ_ONLY.contains(&command.name), "{typed}: {hint}");
            }
        }
    }

    /// A misspelling of one writing command must not lead to another.
    #[test]
    fn suggestions_keep_writing_commands_apart() {
        let writing: Vec<&str> = COMMANDS
            .iter()
            .map(|command| command.name)
            .filter(|name| !READ_ONLY.contains(name))
            .collect();
        for one in &writing {
            for other in writing.iter().filter(|other| *other != one) {
                let parts: Vec<&str> = one.split(':').collect();
                let same_action = one.split(':').next_back() == other.split(':').next_back();
                let score = score(COMMANDS, &parts, other);
                assert!(
                    score.is_none_or(|score| score >= OTHER_GROUP && same_action),
                    "{one} {other}"
                );
            }
        }
    }

    #[test]
    fn read_only_names_are_commands() {
        for name in READ_ONLY {
            assert!(COMMANDS.named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn edit_distance_counts_letters() {
        for (a, b, letters) in [
            ("", "", 0),
            ("a", "", 1),
            ("list", "lst", 1),
            ("uplaod", "upload", 1),
            ("create", "update", 3),
        ] {
            assert_eq!(edit_distance(a, b), letters, "{a} {b}");
        }
    }
}
