//! Reads, replaces and removes a small file that only its owner may read. What stands in it is credentials.rs' matter.
//!
//! The path comes from the user, so anything may be there: only a regular file of at most 64 KiB is ever read, replaced or
//! removed. A device, a pipe or a folder stays as it is. Links are followed, also one whose target does not exist yet.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::shared::hash::hex;
use crate::shared::random;

/// Largest file that is taken for one of ours. A login has some hundred bytes.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// What a path leads to.
enum Found {
    /// No file, or none that this user can know of.
    Nothing,
    /// `/dev/null`, which people name to say that there is to be no file.
    NullDevice,
    Regular(Metadata),
}

/// The file's bytes; `None` when there is no file: also in a folder that does not exist or cannot be entered.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match find(path) {
        Ok(Found::Regular(_)) => {}
        Ok(Found::Nothing | Found::NullDevice) => return Ok(None),
        // Another user's folder. (A file that cannot be read is met only when it is opened.)
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    let limit = BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    // It grew, or its length is not known to the system (`/proc`).
    if bytes.len() > BYTES_MAX {
        return Err(too_large());
    }
    Ok(Some(bytes))
}

/// Replaces the file in one step, or makes it: readable by its owner alone from its first byte on. A link stays a link, and
/// a file that exists keeps its owner.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = Place::prepare(path)?;
    let written = place.write_temporary(bytes);
    let renamed = written.and_then(|()| fs::rename(&place.temporary, &place.target));
    let Err(error) = renamed else {
        return Ok(());
    };
    place.remove_temporary();
    if place.may_be_rewritten(&error) {
        rewrite(&place.target, bytes)
    } else {
        Err(error)
    }
}

/// Finds out whether [`replace`] will work, and changes nothing but a folder that is missing.
pub(crate) fn check_replaceable(path: &Path) -> io::Result<()> {
    let place = Place::prepare(path)?;
    // As many bytes as a login may have, so that a full disk shows.
    let written = place.write_temporary(&[b' '; 4096]);
    place.remove_temporary();
    match written {
        Err(error) if place.may_be_rewritten(&error) => {
            let opened = OpenOptions::new().write(true).open(&place.target);
            opened.map(drop)
        }
        other => other,
    }
}

/// Removes the file that `path` leads to; `false` when there was none. A link to it stays, for the next login.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let Found::Regular(_) = find(path)? else {
        return Ok(false);
    };
    let target = follow_links(path)?;
    match fs::remove_file(&target) {
        Ok(()) => Ok(true),
        Err(error) if is_held_in_place(&error) => {
            let emptied = OpenOptions::new().write(true).truncate(true).open(&target);
            emptied.map(|_| true).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

/// Can other users of this machine read the file?
#[cfg(unix)]
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Windows keeps a home folder's files to its user.
#[cfg(not(unix))]
pub(crate) fn is_open_to_others(_: &Path) -> bool {
    false
}

fn find(path: &Path) -> io::Result<Found> {
    match fs::metadata(path) {
        Ok(found) if found.len() > BYTES_MAX as u64 && found.is_file() => Err(too_large()),
        Ok(found) if found.is_file() => Ok(Found::Regular(found)),
        Ok(found) if found.is_dir() => {
            Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder"))
        }
        Ok(found) if is_null_device(&found) => Ok(Found::NullDevice),
        Ok(_) => Err(not_regular()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Found::Nothing)
        }
        Err(error) => Err(error),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

fn too_large() -> io::Error {
    io::Error::other("it is larger than 64 KiB, so it is no credentials file")
}

/// Where a file is about to be replaced.
struct Place {
    before: Option<Metadata>,
    /// The end of all links.
    target: PathBuf,
    temporary: PathBuf,
}

impl Place {
    /// Refuses what is no regular file, and makes the folder where there is none.
    fn prepare(path: &Path) -> io::Result<Place> {
        let before = match find(path)? {
            Found::Regular(before) => Some(before),
            Found::Nothing => None,
            Found::NullDevice => return Err(not_regular()),
        };
        let target = follow_links(path)?;
        make_folder_of(&target)?;
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!(".{}.tmp", hex(&random::bytes::<8>())));
        Ok(Place {
            before,
            target,
            temporary: temporary.into(),
        })
    }

    fn write_temporary(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.temporary)?;
        if let Some(before) = &self.before {
            keep_owner(&file, before)?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn remove_temporary(&self) {
        // It may not even have been made; and if it cannot be removed, there is nothing left to try.
        let _ = fs::remove_file(&self.temporary);
    }

    fn may_be_rewritten(&self, error: &io::Error) -> bool {
        self.before.is_some() && is_held_in_place(error)
    }
}

/// Can the file be neither replaced nor removed, but perhaps still be written? So it is with a single file that is mounted
/// into a container, in a folder that is read-only, and with another user's file.
fn is_held_in_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Writes into the file itself. Whoever owns it has chosen who may read it.
fn rewrite(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The end of a chain of links, whether or not there is a file.
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
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Root may write everybody's files, but they stay theirs.
#[cfg(unix)]
fn keep_owner(file: &File, before: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    if file.metadata()?.uid() == before.uid() {
        return Ok(());
    }
    fchown(file, Some(before.uid()), Some(before.gid()))
}

/// Windows gives a file the rights of its folder.
#[cfg(not(unix))]
fn keep_owner(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_null_device(found: &Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let same = |null: Metadata| null.file_type().is_char_device() && null.rdev() == found.rdev();
    found.file_type().is_char_device() && fs::metadata("/dev/null").is_ok_and(same)
}

#[cfg(not(unix))]
fn is_null_device(_: &Metadata) -> bool {
    false
}

/// As many as Linux follows.
const LINKS_MAX: usize = 40;
