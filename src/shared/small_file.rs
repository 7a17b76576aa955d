//! Reads whole files that a setting names. Anything may be at their paths: only a regular file (after all links) is read, up to a
//! maximum, so that no pipe blocks the reader and no device fills the memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Largest secret, key, certificate chain or password file that is read.
pub const BYTES_MAX: usize = 1024 * 1024;

/// The bytes of the regular file at `path`, at most [`BYTES_MAX`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, BYTES_MAX)
}

/// The bytes of the regular file at `path`. A file of more than `bytes_max` is an error.
pub fn read_up_to(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_capped(open(path)?, bytes_max)
}

/// Opens the regular file at `path` for reading. Never waits for the other end of a pipe.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a device can have effects, so that it is looked at first; and once more, since it may be replaced in between.
    only_regular(&fs::metadata(path)?)?;
    let file = open_without_waiting(path)?;
    only_regular(&file.metadata()?)?;
    Ok(file)
}

/// Opens whatever is at `path` for reading. Of a pipe, reads do not block then.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Reads to the end. More than `bytes_max` is an error.
pub fn read_capped(reader: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let kib = bytes_max / 1024;
        return Err(io::Error::other(format!("it is larger than {kib} KiB")));
    }
    Ok(bytes)
}

fn only_regular(found: &fs::Metadata) -> io::Result<()> {
    match found.is_file() {
        true => Ok(()),
        false if found.is_dir() => Err(Errno::ISDIR.into()),
        false => Err(io::Error::other("it is not a regular file")),
    }
}
