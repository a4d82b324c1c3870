//! The part of HTTP/1.1 that is needed to read pages.

/// The first line and the headers of a request may have so many bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether only the headers are wanted.
    pub head_only: bool,
    /// The path with all escapes resolved, without what follows `?`.
    pub path: String,
}

/// Why a request is not answered with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: this is not HTTP, or not a path.
    Malformed,
    /// 405: only `GET` and `HEAD` are understood.
    Method,
    /// 403: the request was meant for another server. A page elsewhere could have its own name point here.
    Host,
    /// 431: the headers do not end.
    TooLarge,
    /// 408: the request took too long to come.
    TooSlow,
    /// 503: too many clients at once.
    Busy,
}

impl Refusal {
    /// The status line's number and words.
    pub fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::Host => "403 Forbidden",
            Self::Method => "405 Method Not Allowed",
            Self::TooSlow => "408 Request Timeout",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Busy => "503 Service Unavailable",
        }
    }
}

/// Reads the head of a request that came to `port`.
///
/// # Errors
/// See [`Refusal`].
pub fn parse(head: &[u8], port: u16) -> Result<Request, Refusal> {
    let head = std::str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Refusal::Malformed);
    }
    let mut hosts = vec![];
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
        if name.eq_ignore_ascii_case("host") {
            hosts.push(value.trim());
        }
    }
    let [host] = hosts.as_slice() else { return Err(Refusal::Malformed) };
    if ![format!("127.0.0.1:{port}"), format!("localhost:{port}")].iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return Err(Refusal::Host);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refusal::Method),
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = decode(path).filter(|path| path.starts_with('/')).ok_or(Refusal::Malformed)?;
    Ok(Request { head_only, path })
}

/// Resolves `%xx`; nothing where that gives no text, or characters that no name of ours has.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|path| !path.chars().any(char::is_control))
}

/// A path as it stands in an address.
pub fn encode(path: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(target: &str) -> Result<Request, Refusal> {
        parse(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n").as_bytes(), 80)
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(get("/a%20b?c=d").unwrap().path, "/a b");
        assert_eq!(get("/%252e%252e/x").unwrap().path, "/%2e%2e/x");
        assert_eq!(get("/%E2%80%AE").unwrap().path, "/\u{202e}");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for target in ["", "x", "http://127.0.0.1:80/", "*", "/%", "/%4", "/%zz", "/%+1", "/%00", "/a%0d%0aX:1", "/%ff"]
        {
            assert_eq!(get(target), Err(Refusal::Malformed), "{target}");
        }
    }

    #[test]
    fn only_reading_is_understood() {
        let with = |method: &str| parse(format!("{method} / HTTP/1.1\r\nhost:localhost:80\r\n\r\n").as_bytes(), 80);
        assert!(!with("GET").unwrap().head_only && with("HEAD").unwrap().head_only);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"] {
            assert_eq!(with(method), Err(Refusal::Method));
        }
        assert_eq!(with("get"), Err(Refusal::Malformed));
    }

    #[test]
    fn requests_for_other_hosts_are_refused() {
        let with = |hosts: &str| parse(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes(), 80);
        for host in ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:81", "localhost.evil:80", "0.0.0.0:80"]
        {
            assert_eq!(with(&format!("Host: {host}\r\n")), Err(Refusal::Host), "{host}");
        }
        assert_eq!(with(""), Err(Refusal::Malformed));
        assert_eq!(with("Host: 127.0.0.1:80\r\nHost: evil.example\r\n"), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&head, 80);
        }

        #[test]
        fn any_path_comes_back(path in "/\\PC{0,40}") {
            prop_assert_eq!(get(&encode(&path)).unwrap().path, path);
        }
    }
}
