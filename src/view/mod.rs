//! Reports and running pipelines in a browser: a small HTTP server on loopback that only reads.
//!
//! Of a request only its path counts, and that only as a key: [`Site`] makes the list of everything that may be seen and
//! looks the path up in it, so no path on the disk is ever made of what a client sent. The server is made of the standard
//! library: what is needed of HTTP fits on a page, and the limits (size and time of a request, number of clients) are
//! easier to see here than in a library's settings.

pub mod request;
pub mod server;
pub mod site;

pub use server::{Server, serve};
pub use site::Site;
