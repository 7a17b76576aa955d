//! Notices an answer that comes while its request is still being sent (413, 401): ureq only looks for one afterwards, by
//! which time the connection is often closed. Once there is one, the rest of the request is dropped instead of sent.

use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// How far the last request has come, as its connection sees it. One client's requests go one after another.
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

    /// May any byte of the request have left?
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Has some part of the request not left, because the connection failed?
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Has the answer come before the request's end? What is sent from here on goes nowhere.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }
}

/// A connection that is watched for an answer whenever it sends.
pub(super) struct Watched {
    transport: Box<dyn Transport>,
    socket: Arc<TcpStream>,
    sending: Arc<Sending>,
    is_answered: bool,
    /// The early answer is in the buffer, and ureq does not know yet.
    is_news: bool,
    /// The server has ended its side.
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

    /// Takes what has arrived, without waiting for more; true once that is an answer's head.
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
                // Of TLS it was no data, or less than a record; a lost connection shows when it is written to.
                Err(_) => break,
            }
        }
        false
    }

    /// Waits until the connection takes more, or an answer is there: a server that has answered may read no more.
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

    /// What of `wanted` the socket is ready for; `None` when the time is over.
    fn ready_for(&self, wanted: PollFlags, limit: Option<Duration>) -> Option<PollFlags> {
        let mut socket = [PollFd::new(&*self.socket, wanted)];
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut socket, limit.as_ref()) {
            Ok(0) => None,
            Ok(_) => Some(socket[0].revents()),
            // What is wrong shows when the connection is used.
            Err(_) => Some(wanted),
        }
    }

    /// Does the input begin with a whole head? Interim ones (RFC 9110 §15.2) are dropped.
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
                // ureq says what is wrong with one that cannot be read.
                Ok(httparse::Status::Complete(_)) | Err(_) => return true,
            }
        }
    }

    /// From here on, what is sent goes nowhere.
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
        // A server that refuses often closes at once, and what it said before is still there to be read.
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

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

/// Something has arrived: only TLS may need more than that.
const AT_ONCE: NextTimeout = NextTimeout {
    after: UreqDuration::Exact(Duration::from_millis(10)),
    reason: Timeout::PerRead,
    per_read: None,
    per_write: None,
};

/// Most header lines of an answer that are looked at.
const HEADERS_MAX: usize = 128;
