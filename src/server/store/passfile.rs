//! libpq's password file (`~/.pgpass`), and the account that this process runs as. Both are read from files, without libc.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::shared::small_file;

/// Finds the password for this connection in the password file at `path`, as libpq does. The error says why the file is
/// ignored.
pub(crate) fn find(
    path: &Path,
    host: &str,
    port: u16,
    database: &str,
    user: &str,
) -> Result<Option<String>, String> {
    let problem = |reason: &str| Err(format!("the password file {} {reason}", path.display()));
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        // Most accounts have no password file.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return problem(&format!("cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return problem("is not a file, and is ignored");
    }
    if metadata.mode() & 0o077 != 0 {
        return problem("is ignored, since others may read it: chmod 600");
    }
    match small_file::read(path) {
        Ok(bytes) => {
            let port = port.to_string();
            let wanted = [host, &port, database, user];
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.lines().find_map(|line| password_in(line, wanted)))
        }
        Err(error) => problem(&format!("cannot be read: {error}")),
    }
}

/// The password of a line `host:port:database:user:password`, if each of its first four fields is `*` or the one wanted. A
/// backslash escapes the next character, `:` or `\`.
fn password_in(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in wanted {
        let is_wildcard = rest.starts_with("*:");
        let (field, after) = field(rest);
        rest = after?;
        if !is_wildcard && field != wanted {
            return None;
        }
    }
    Some(field(rest).0).filter(|password| !password.is_empty())
}

/// Splits off the first field and unescapes it. `None`: there is no further field.
fn field(line: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (field, Some(&line[at + 1..])),
            '\\' => field.push(characters.next().map_or('\\', |(_, escaped)| escaped)),
            other => field.push(other),
        }
    }
    (field, None)
}

/// Name and home of the account that this process runs as, if it stands in `/etc/passwd`.
pub(crate) fn account() -> Option<(String, PathBuf)> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [name, _, uid, _, _, home, _] if uid == id => Some((name.to_owned(), home.into())),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn password_line_matches_as_in_libpq() {
        let wanted = ["h", "5432", "db", "u"];
        for (line, expected) in [
            ("h:5432:db:u:secret", Some("secret")),
            ("*:*:*:*:secret", Some("secret")),
            ("h:*:db:u:sec\\:ret\\\\", Some("sec:ret\\")),
            ("h:5432:db:u:secret:more", Some("secret")),
            ("\\h:5432:d\\b:u:secret", Some("secret")),
            ("h:5432:db:u:", None),
            ("h:5432:db:u", None),
            ("h*:5432:db:u:secret", None),
            ("\\*:5432:db:u:secret", None),
            ("#h:5432:db:u:secret", None),
            ("other:5432:db:u:secret", None),
            ("h:5433:db:u:secret", None),
            ("", None),
        ] {
            assert_eq!(password_in(line, wanted).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn password_comes_from_the_first_matching_line_unless_others_may_read_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        let find = || find(&path, "h", 5432, "db", "u");
        assert_eq!(find(), Ok(None));
        fs::write(
            &path,
            "# ours\r\n*:*:other:*:no\r\n*:*:db:*:first\r\nh:5432:db:u:second\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(), Ok(Some("first".to_owned())));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(find().unwrap_err().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "x".repeat(small_file::BYTES_MAX + 1)).unwrap();
        assert!(find().unwrap_err().contains("larger than 1024 KiB"));
    }
}
