//! Connections: how many, and for how long each may keep the service waiting.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use graft_shared::limits::{
    HEAD_DEADLINE, MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS, WRITE_DEADLINE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};

use super::answer;
use crate::serve::Service;
use crate::serve::listen::{Listener, Stream};

/// After a refusal the client's bytes are read and thrown away for so long: closing on them would take the answer from it.
const LINGER: Duration = Duration::from_secs(2);
/// Of one connection no more is read than the largest body with what is around it.
const MAX_LINGER_BYTES: usize = MAX_BODY_BYTES + (64 << 10);
/// After which to try again where the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is dropped. Each holds `alive`; once `stop` says so, each ends after the answer that it is at.
pub(crate) async fn accept(
    listener: Listener,
    service: Arc<Service>,
    mut alive: watch::Receiver<Option<mpsc::Sender<()>>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok(stream) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (service, stop) = (service.clone(), alive.clone());
        let token = alive.borrow_and_update().clone();
        tokio::spawn(async move {
            service.metrics.connections.add(1);
            let stream = serve(stream, &service, stop).await;
            drop(token);
            // Its end is the end, however it comes.
            let _ = timeout(LINGER, linger(stream)).await;
            service.metrics.connections.sub(1);
            drop(place);
        });
    }
}

/// Answers what comes in, until either side has enough.
async fn serve(
    stream: Box<dyn Stream>,
    service: &Arc<Service>,
    mut stop: watch::Receiver<Option<mpsc::Sender<()>>>,
) -> Patient {
    let handle = service_fn(|request| {
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&service, request).await) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream)), handle);
    let mut stopped = false;
    loop {
        tokio::select! {
            // What goes wrong on a connection is the client's affair.
            _ = &mut connection => break,
            _ = stop.wait_for(Option::is_none), if !stopped => {
                stopped = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    connection.into_parts().io.into_inner()
}

/// Reads until the client has closed.
async fn linger(stream: Patient) -> io::Result<()> {
    let mut stream = pin!(stream);
    poll_fn(|context| stream.as_mut().poll_shutdown(context)).await?;
    let mut buffer = [0; 4 << 10];
    while stream.read < MAX_LINGER_BYTES {
        let mut buffer = ReadBuf::new(&mut buffer);
        poll_fn(|context| stream.as_mut().poll_read(context, &mut buffer)).await?;
        if buffer.filled().is_empty() {
            break;
        }
    }
    Ok(())
}

/// A stream that counts what it reads, and is done with a client that takes nothing for [`WRITE_DEADLINE`].
struct Patient {
    stream: Box<dyn Stream>,
    read: usize,
    /// Runs while the client does not take what is there for it.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            read: 0,
            deadline: None,
        }
    }

    fn within_deadline<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(WRITE_DEADLINE)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read += buffer.filled().len() - before;
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_deadline(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within_deadline(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
