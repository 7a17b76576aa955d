//! Reads, replaces and removes a small file that only its owner may read. json_file.rs knows its content.
//!
//! The path comes from the user, so that anything may be there: only a regular file of at most 64 KiB is read, replaced or
//! removed. A device, a pipe or a folder stays untouched. Links are followed, even where the target does not exist yet.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown,
};
use std::path::{Path, PathBuf};

use crate::shared::hash::hex;
use crate::shared::{random, small_file};

/// Largest file that is read. A login has some hundred bytes.
const BYTES_MAX: usize = 64 * 1024;

/// The file's bytes; `None` when there is no file, or its folder does not exist or may not be entered.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match find(path) {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(None),
        // The folder is another user's. (A file that may not be read fails only when it is opened.)
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    }
    small_file::read_up_to(path, BYTES_MAX).map(Some)
}

/// Replaces the file atomically, or creates it; no other user can read it at any time. A link stays a link, and an existing
/// file keeps its owner.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let replacement = Replacement::prepare(path)?;
    let written = replacement.write_temporary(bytes);
    let renamed = written.and_then(|()| fs::rename(&replacement.temporary, &replacement.target));
    let Err(error) = renamed else {
        return Ok(());
    };
    replacement.remove_temporary();
    if replacement.may_be_rewritten(&error) {
        rewrite(&replacement.target, bytes)
    } else {
        Err(error)
    }
}

/// Checks that [`replace`] will work. It creates a missing folder, and changes nothing else.
pub(crate) fn check_replaceable(path: &Path) -> io::Result<()> {
    let replacement = Replacement::prepare(path)?;
    // As many bytes as a login may have, to detect a full disk.
    let written = replacement.write_temporary(&[b' '; 4096]);
    replacement.remove_temporary();
    match written {
        Err(error) if replacement.may_be_rewritten(&error) => {
            let opened = OpenOptions::new().write(true).open(&replacement.target);
            opened.map(drop)
        }
        other => other,
    }
}

/// Removes the file that `path` leads to; `false` when there was none. A link stays, for the next login.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    if find(path)?.is_none() {
        return Ok(false);
    }
    let target = follow_links(path)?;
    match fs::remove_file(&target) {
        Ok(()) => Ok(true),
        Err(error) if may_be_writable(&error) => {
            let emptied = OpenOptions::new().write(true).truncate(true).open(&target);
            emptied.map(|_| true).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// The regular file that `path` leads to; `None` for no file, and for `/dev/null`, which people name to have none.
fn find(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(found) if found.len() > BYTES_MAX as u64 && found.is_file() => Err(io::Error::other(
            "it is larger than 64 KiB, so it is no credentials file",
        )),
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(found) if found.is_dir() => {
            Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder"))
        }
        Ok(found) if is_null_device(&found) => Ok(None),
        Ok(_) => Err(not_regular()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

struct Replacement {
    before: Option<Metadata>,
    /// The end of all links.
    target: PathBuf,
    temporary: PathBuf,
}

impl Replacement {
    /// Refuses anything but a regular file or none, and creates a missing folder.
    fn prepare(path: &Path) -> io::Result<Replacement> {
        let before = find(path)?;
        if fs::metadata(path).is_ok_and(|found| is_null_device(&found)) {
            return Err(not_regular());
        }
        let target = follow_links(path)?;
        make_folder_of(&target)?;
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!(".{}.tmp", hex(&random::bytes::<8>())));
        Ok(Replacement {
            before,
            target,
            temporary: temporary.into(),
        })
    }

    fn write_temporary(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&self.temporary)?;
        if let Some(before) = &self.before {
            keep_owner(&file, before)?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn remove_temporary(&self) {
        // It may not exist, and a file that cannot be removed has to stay.
        let _ = fs::remove_file(&self.temporary);
    }

    fn may_be_rewritten(&self, error: &io::Error) -> bool {
        self.before.is_some() && may_be_writable(error)
    }
}

/// May the file be writable although it can be neither replaced nor removed? That holds for a single file that is mounted
/// into a container, for a read-only folder, and for another user's folder.
fn may_be_writable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Writes into the existing file, whose owner has chosen who may read it.
fn rewrite(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where a chain of links ends, whether or not a file is there.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        if !fs::symlink_metadata(&target).is_ok_and(|found| found.is_symlink()) {
            return Ok(target);
        }
        let next = fs::read_link(&target)?;
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    Err(io::Error::other("its links lead back to themselves"))
}

fn make_folder_of(target: &Path) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new(""));
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A file that root replaces keeps its owner.
fn keep_owner(file: &File, before: &Metadata) -> io::Result<()> {
    if file.metadata()?.uid() == before.uid() {
        return Ok(());
    }
    fchown(file, Some(before.uid()), Some(before.gid()))
}

fn is_null_device(found: &Metadata) -> bool {
    let same = |null: Metadata| null.file_type().is_char_device() && null.rdev() == found.rdev();
    found.file_type().is_char_device() && fs::metadata("/dev/null").is_ok_and(same)
}

/// As many links as Linux follows.
const LINKS_MAX: usize = 40;
