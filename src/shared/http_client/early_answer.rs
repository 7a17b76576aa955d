//! Notices an answer that comes while its request is still being sent (413, 401), and then drops the rest of the request. ureq
//! reads an answer only after the request, when the server has often closed the connection.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// How far the last request of a client has been sent. A client sends one request after another.
#[derive(Debug, Default)]
pub struct Sending {
    begun: AtomicBool,
    failed: AtomicBool,
    answered: AtomicBool,
}

impl Sending {
    /// Before each request.
    pub fn reset(&self) {
        for flag in [&self.begun, &self.failed, &self.answered] {
            flag.store(false, Ordering::SeqCst);
        }
    }

    /// May any byte of the request have been sent?
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Did the connection fail before the whole request was sent?
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Did the answer come before the whole request was sent? The rest is dropped.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }
}

/// A connection that checks for an answer before each write.
#[derive(Debug)]
pub(super) struct Watched {
    transport: Box<dyn Transport>,
    socket: Arc<TcpStream>,
    sending: Arc<Sending>,
    is_answered: bool,
    /// The early answer is in the buffer, and ureq has not been told yet.
    is_news: bool,
    /// The server has closed its side.
    has_ended: bool,
}

/// What [`Watched::wait_for_room`] waits for.
enum Room {
    Free,
    Answered,
}

impl Watched {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        socket: Arc<TcpStream>,
        sending: Arc<Sending>,
    ) -> Watched {
        Watched {
            transport,
            socket,
            sending,
            is_answered: false,
            is_news: false,
            has_ended: false,
        }
    }

    /// Reads what has arrived, without waiting; true once it includes an answer's head.
    fn take_arrived(&mut self) -> bool {
        while !self.has_ended
            && self
                .ready_for(PollFlags::IN, Some(Duration::ZERO))
                .is_some()
        {
            match self.transport.await_input(AT_ONCE) {
                Ok(true) if self.has_final_head() => return true,
                Ok(true) => {}
                Ok(false) => self.has_ended = true,
                // With TLS: no data, or an incomplete record. A failed connection shows on the next write.
                Err(_) => break,
            }
        }
        false
    }

    /// Waits until the connection accepts a write, or an answer has come: a server that has answered may not read any more.
    fn wait_for_room(&mut self, timeout: NextTimeout) -> Result<Room, Error> {
        let timeout = timeout.for_write();
        let limit = timeout.not_zero().map(|limit| *limit);
        loop {
            if self.take_arrived() {
                return Ok(Room::Answered);
            }
            let mut wanted = PollFlags::OUT;
            wanted.set(PollFlags::IN, !self.has_ended);
            match self.ready_for(wanted, limit) {
                None => return Err(Error::Timeout(timeout.reason)),
                Some(PollFlags::IN) => {}
                Some(_) => return Ok(Room::Free),
            }
        }
    }

    /// Which of `wanted` the socket is ready for; `None` after the time limit.
    fn ready_for(&self, wanted: PollFlags, limit: Option<Duration>) -> Option<PollFlags> {
        let mut socket = [PollFd::new(&*self.socket, wanted)];
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut socket, limit.as_ref()) {
            Ok(0) => None,
            Ok(_) => Some(socket[0].revents()),
            // An error shows when the connection is used.
            Err(_) => Some(wanted),
        }
    }

    /// Does the input begin with a whole head? Heads of interim answers (RFC 9110 §15.2) are dropped.
    fn has_final_head(&mut self) -> bool {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut answer = httparse::Response::new(&mut headers);
            match answer.parse(self.transport.buffers().input()) {
                Ok(httparse::Status::Partial) => return false,
                Ok(httparse::Status::Complete(bytes))
                    if matches!(answer.code, Some(100 | 102..200)) =>
                {
                    self.transport.buffers().input_consume(bytes);
                }
                // ureq reports a head that cannot be parsed.
                Ok(httparse::Status::Complete(_)) | Err(_) => return true,
            }
        }
    }

    /// From now on, writes are dropped.
    fn note_answer(&mut self) {
        self.is_answered = true;
        self.is_news = true;
        self.sending.answered.store(true, Ordering::SeqCst);
    }
}

impl Transport for Watched {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_answered {
            return Ok(());
        }
        let sent = match self.wait_for_room(timeout) {
            Ok(Room::Answered) => {
                self.note_answer();
                return Ok(());
            }
            Ok(Room::Free) => {
                self.sending.begun.store(true, Ordering::SeqCst);
                self.transport.transmit_output(amount, timeout)
            }
            Err(error) => Err(error),
        };
        let Err(error) = sent else {
            return Ok(());
        };
        // A server that refuses often closes at once; its answer can still be read.
        if self.take_arrived() {
            self.note_answer();
            return Ok(());
        }
        self.sending.failed.store(true, Ordering::SeqCst);
        Err(error)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if std::mem::take(&mut self.is_news) {
            return Ok(true);
        }
        self.transport.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.is_answered && self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

/// The time limit for reading what has arrived: only TLS may need to wait for more.
const AT_ONCE: NextTimeout = NextTimeout {
    after: UreqDuration::Exact(Duration::from_millis(10)),
    reason: Timeout::PerRead,
    per_read: None,
    per_write: None,
};

const HEADERS_MAX: usize = 128;
