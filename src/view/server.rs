//! Takes connections on loopback and answers each in a thread of its own, so that a slow client delays nobody.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    request::{MAX_HEAD, Refusal, parse},
    site::{Page, Site},
};

/// Clients at a time; one more is told to come again.
const MAX_CLIENTS: usize = 1_200;
/// A request must have come within this time.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// An answer must have been taken within this time.
const WRITE_WITHIN: Duration = Duration::from_mins(1);
/// An answer is written in pieces, so that the time can be looked at.
const PIECE: usize = 64 * 1024;
const STACK: usize = 256 * 1024;

/// A server that has its port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    port: u16,
}

impl Server {
    /// Takes `port` on loopback; 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken or may not be used.
    pub fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where it is to be found.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

/// Answers requests for as long as the process lives.
pub fn serve(server: &Server, site: &Arc<Site>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in server.listener.incoming() {
        let Ok(stream) = stream else {
            // Such as too many open files: the next moment is better.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let (place, site, port) = (Place::take(&clients), Arc::clone(site), server.port);
        let answer = move || {
            let refusal = place.is_none().then_some(Refusal::Busy);
            // A client that has gone away wants no answer.
            let _ = converse(&stream, &site, port, refusal);
            drop(place);
        };
        // Without a thread the connection is closed.
        let _ = thread::Builder::new().name("client".into()).stack_size(STACK).spawn(answer);
    }
}

/// One of the places for clients, free again when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(clients));
        (clients.fetch_add(1, Ordering::SeqCst) < MAX_CLIENTS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn converse(mut stream: &TcpStream, site: &Site, port: u16, refusal: Option<Refusal>) -> io::Result<()> {
    let request = match refusal {
        Some(refusal) => Err(refusal),
        None => read_head(stream).and_then(|head| parse(&head, port)),
    };
    let (page, head_only) = match request {
        Ok(request) => (site.page(&request.path), request.head_only),
        Err(refusal) => (Page::refusal(refusal), false),
    };
    let mut head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: {}\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n",
        page.status,
        page.content_type,
        page.body.len(),
        page.policy,
    );
    if page.status.starts_with("405") {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    head.push_str("\r\n");
    let until = Instant::now() + WRITE_WITHIN;
    let body: &[u8] = if head_only { &[] } else { &page.body };
    for piece in std::iter::once(head.as_bytes()).chain(body.chunks(PIECE)) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        stream.write_all(piece)?;
    }
    stream.flush()?;
    // What the client still sends is read, or else the system might take back what was written.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut rest = [0; 1024];
    for _ in 0..16 {
        if !matches!(stream.read(&mut rest), Ok(1..)) {
            break;
        }
    }
    Ok(())
}

/// The bytes up to the empty line.
fn read_head(mut stream: &TcpStream) -> Result<Vec<u8>, Refusal> {
    let until = Instant::now() + READ_WITHIN;
    let mut head = vec![];
    let mut piece = [0; 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Err(Refusal::TooSlow);
        }
        let count = match stream.read(&mut piece) {
            Ok(0) => return Err(Refusal::Malformed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Refusal::TooSlow),
        };
        // The empty line may come in two pieces.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = memchr::memmem::find(&head[from..], b"\r\n\r\n") {
            head.truncate(from + end + 4);
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(Refusal::TooLarge);
        }
    }
}
