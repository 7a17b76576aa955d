//! A TCP connection as a transport of ureq. ureq's own one does not share its socket, which early_answer.rs needs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

#[derive(Debug)]
pub(super) struct TcpTransport {
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
}

impl TcpTransport {
    pub(super) fn connect(
        address: SocketAddr,
        timeout: NextTimeout,
        config: &Config,
    ) -> Result<TcpTransport, Error> {
        let connected = match timeout.not_zero() {
            Some(limit) => TcpStream::connect_timeout(&address, *limit),
            None => TcpStream::connect(address),
        };
        let stream = connected.map_err(|error| in_time(error, timeout))?;
        stream.set_nodelay(config.no_delay())?;
        Ok(TcpTransport {
            stream: Arc::new(stream),
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
        })
    }

    pub(super) fn socket(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = not_over(timeout.for_write())?;
        self.stream
            .set_write_timeout(timeout.not_zero().map(|limit| *limit))?;
        let written = (&*self.stream).write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = not_over(timeout.for_read())?;
        self.stream
            .set_read_timeout(timeout.not_zero().map(|limit| *limit))?;
        let input = self.buffers.input_append_buf();
        let count = loop {
            match (&*self.stream).read(input) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| in_time(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Between requests, a usable connection has nothing to read, not even its end.
    fn is_open(&mut self) -> bool {
        let is_silent = self.stream.set_nonblocking(true).is_ok()
            && matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        is_silent && self.stream.set_nonblocking(false).is_ok()
    }
}

fn not_over(timeout: NextTimeout) -> Result<NextTimeout, Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(timeout)
}

/// Turns the error of a socket's time limit, whose kind depends on the system, into ureq's.
fn in_time(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
