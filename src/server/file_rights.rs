//! Error texts for files that the server may not use: the owner, the server's user, and what to do.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{getegid, geteuid};

/// The error's text. If permission was denied, with the server's user and the owner of `path` or, if that is not visible, of the
/// nearest visible folder above it.
pub(crate) fn explain(path: &Path, error: &io::Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let server = format!("the server runs as user {user} and group {group}");
    match nearest(path) {
        Some((found, owner)) => format!("{error}; {server}, {} {owner}", found.display()),
        None => format!("{error}; {server}"),
    }
}

/// The same for the store's file, with the command that fixes it.
pub(crate) fn explain_store(file: &Path, error: &io::Error) -> String {
    let (what, user) = (explain(file, error), geteuid().as_raw());
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let (name, folder) = (file.display(), folder.unwrap_or(Path::new(".")).display());
    let hint = match (error.kind(), file.metadata()) {
        (ErrorKind::ReadOnlyFilesystem, _) => {
            "set DATA_DIR to a folder that can be written to (in a container: a volume)".to_owned()
        }
        (ErrorKind::PermissionDenied, Ok(found)) if found.uid() == user => {
            format!("chmod u+rw {name}, if it is not SELinux or AppArmor that forbids it")
        }
        (ErrorKind::PermissionDenied, Ok(_)) => {
            format!("chown {user} {name} gives it to the server")
        }
        (ErrorKind::PermissionDenied, Err(_)) => {
            format!("a folder of the server's own is made by: install -d -m 700 -o {user} {folder}")
        }
        _ => return what,
    };
    format!("{what}; {hint}")
}

/// Why the store's file cannot be written or created; `None`: it can. Changes nothing.
pub(crate) fn store_problem(file: &Path) -> Option<String> {
    let (at, _) = nearest(file)?;
    let error = io::Error::from(access(at, Access::WRITE_OK).err()?);
    Some(explain_store(file, &error))
}

/// The longest visible prefix of `path`, and its owner.
fn nearest(path: &Path) -> Option<(&Path, String)> {
    path.ancestors().find_map(|part| {
        // The parent of the path `a` is "", which means the current folder.
        let part = Some(part).filter(|part| !part.as_os_str().is_empty());
        let part = part.unwrap_or(Path::new("."));
        Some((part, owner(part)?))
    })
}

fn owner(path: &Path) -> Option<String> {
    let found = path.metadata().ok()?;
    let (user, group, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    Some(format!(
        "belongs to user {user} and group {group} (mode {mode:o})"
    ))
}
