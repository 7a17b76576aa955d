//! Which build of the programs this is: the version, and the commit that `scripts/build-static` compiled.

/// The crate's version, such as `0.2.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first digits of the commit's hash, with `-dirty` where files differed from it; `None` in a plain `cargo build`.
pub const COMMIT: Option<&str> = option_env!("POSTIZ_COMMIT");

/// What `--version` prints after the program's name: `0.2.0 (npm 2.1.0 compatible, 1a2b3c4d5e6f)`.
pub fn version(note: Option<&str>) -> String {
    with_notes(note.into_iter().chain(COMMIT).collect())
}

fn with_notes(notes: Vec<&str>) -> String {
    if notes.is_empty() {
        return VERSION.to_owned();
    }
    format!("{VERSION} ({})", notes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_stand_in_one_pair_of_brackets() {
        for (notes, expected) in [
            (vec![], ""),
            (vec!["1a2b3c4d5e6f"], " (1a2b3c4d5e6f)"),
            (
                vec!["npm 2.1.0 compatible", "1a2b3c4d5e6f-dirty"],
                " (npm 2.1.0 compatible, 1a2b3c4d5e6f-dirty)",
            ),
        ] {
            assert_eq!(with_notes(notes), format!("{VERSION}{expected}"));
        }
    }
}
