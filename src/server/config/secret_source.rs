//! Reads a secret from the file that a setting names. It may be a pipe (a shell's `<(…)`, `/dev/stdin`), since it is read only once,
//! at the start.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, fs::File};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::shared::small_file;

/// How long a pipe's writer may take in all.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of the regular file or the pipe at `path`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.file_type().is_fifo() {
        return small_file::read(path);
    }
    let file = small_file::open_without_waiting(path)?;
    let deadline = Instant::now() + PIPE_TIMEOUT;
    small_file::read_capped(Pipe { file, deadline }, small_file::BYTES_MAX)
}

/// A pipe, to be read until its writer closes it or the deadline passes.
struct Pipe {
    file: File,
    deadline: Instant,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        // A pipe that nobody has written to yet is not at its end, although a read would say so.
        let mut polled = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "it is a pipe whose writer has not finished within {} s",
                    PIPE_TIMEOUT.as_secs()
                ),
            )),
            Ok(_) => self.file.read(buffer),
            Err(error) => Err(error.into()),
        }
    }
}
