//! External URL of a request, and its comparison with `htu` (RFC 9449 section 4.3).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::gate::head::is_host;
use crate::gate::inbound::Scheme;
use crate::gate::proof_fault::UrlFault;

/// URL of a request as its client sent it, without the query: in front of proxies and path rewrites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalUrl<'a> {
    pub scheme: Scheme,
    /// Host, with the port if it is not the default.
    pub authority: &'a str,
    pub path: &'a str,
}

/// Parts of a URL in the form in which equal ones are equal byte for byte.
struct NormalUrl<'a> {
    scheme: Scheme,
    authority: String,
    path: Cow<'a, str>,
}

impl ExternalUrl<'_> {
    /// Compares `htu` with the URL. Returns the text that both have in common.
    ///
    /// Case of scheme and host, the default port, the query and dot segments of `htu` make no difference
    /// (RFC 3986 sections 6.2.2 and 6.2.3). Percent-encodings do: the gate accepts only paths with one spelling.
    pub(super) fn check(&self, htu: &str) -> Result<String, UrlFault> {
        let signed = NormalUrl::parse(htu)?;
        if signed.scheme != self.scheme {
            return Err(UrlFault::Scheme);
        }
        let authority = normal_authority(self.scheme, self.authority);
        if authority.as_ref() != Some(&signed.authority) {
            return Err(UrlFault::Host);
        }
        if signed.path != self.path {
            return Err(UrlFault::Path);
        }
        let scheme = signed.scheme.url_prefix();
        Ok(format!("{scheme}{}{}", signed.authority, signed.path))
    }
}

impl<'a> NormalUrl<'a> {
    fn parse(url: &'a str) -> Result<Self, UrlFault> {
        if url.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let after = |scheme: Scheme| {
            let (start, rest) = url.split_at_checked(scheme.url_prefix().len())?;
            let is_same = start.eq_ignore_ascii_case(scheme.url_prefix());
            is_same.then_some((scheme, rest))
        };
        let found = after(Scheme::Https).or_else(|| after(Scheme::Http));
        let (scheme, rest) = found.ok_or(UrlFault::NotAbsolute)?;
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlFault::UserInfo);
        }
        let authority = normal_authority(scheme, authority).ok_or(UrlFault::NotAbsolute)?;
        Ok(Self {
            scheme,
            authority,
            path: without_dot_segments(path),
        })
    }
}

/// Lower-case host, and port unless it is the default; `None` if they are not valid.
fn normal_authority(scheme: Scheme, authority: &str) -> Option<String> {
    if !is_host(authority) {
        return None;
    }
    // An address in brackets contains colons.
    let end = authority.find(']').unwrap_or(0);
    let colon = authority.get(end..)?.find(':');
    let (host, port) = authority.split_at(colon.map_or(authority.len(), |colon| end + colon));
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = match address {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.to_ascii_lowercase(),
    };
    let port = port.trim_start_matches(':');
    if port.is_empty() {
        return Some(host);
    }
    let port = format!(":{}", port.parse::<u16>().ok()?);
    let port = if port == scheme.default_port() {
        ""
    } else {
        &port
    };
    Some(format!("{host}{port}"))
}

/// Resolves dot segments, plain or percent-encoded, as URL parsers do (RFC 3986 section 5.2.4). An empty path is `/`.
fn without_dot_segments(path: &str) -> Cow<'_, str> {
    let segments = || path.split('/').skip(1);
    if segments().next().is_none() {
        return Cow::Borrowed("/");
    }
    if segments().all(|segment| dots(segment) == 0) {
        return Cow::Borrowed(path);
    }
    let mut kept = Vec::new();
    let mut ends_with_dots = false;
    for segment in segments() {
        let dots = dots(segment);
        ends_with_dots = dots > 0;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    if ends_with_dots {
        kept.push("");
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// Number of dots of a dot segment, plain or percent-encoded; zero for any other segment.
fn dots(segment: &str) -> usize {
    if !segment.starts_with(['.', '%']) || segment.len() > "%2e%2e".len() {
        return 0;
    }
    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scheme: Scheme, authority: &str, path: &str, htu: &str) -> Result<String, UrlFault> {
        let url = ExternalUrl {
            scheme,
            authority,
            path,
        };
        url.check(htu)
    }

    #[test]
    fn ignores_differences_that_url_parsers_ignore() {
        for (scheme, authority, path, htu) in [
            (Scheme::Https, "a.example", "/", "https://a.example"),
            (Scheme::Https, "a.example", "/", "https://a.example?b"),
            (Scheme::Https, "a.example", "/", "https://a.example/?b=/c@d"),
            (Scheme::Https, "a.example", "/b", "HTTPS://A.EXAMPLE/b"),
            (Scheme::Https, "A.example:443", "/b", "https://a.example/b"),
            (Scheme::Https, "a.example", "/b", "https://a.example:0443/b"),
            (Scheme::Https, "a.example", "/b", "https://a.example:/b"),
            (Scheme::Http, "a.example", "/b", "http://a.example:80/b"),
            (
                Scheme::Http,
                "a.example:443",
                "/b",
                "http://a.example:443/b",
            ),
            (
                Scheme::Https,
                "[::1]:443",
                "/b",
                "https://[0:0:0:0:0:0:0:1]/b",
            ),
            (Scheme::Https, "[::1]:8443", "/b", "https://[::1]:8443/b"),
            (Scheme::Https, "a.example", "/c", "https://a.example/b/../c"),
            (
                Scheme::Https,
                "a.example",
                "/c",
                "https://a.example/../../c",
            ),
            (
                Scheme::Https,
                "a.example",
                "/b/c",
                "https://a.example/b/./c",
            ),
            (
                Scheme::Https,
                "a.example",
                "/b/c",
                "https://a.example/b/x/.%2E/%2e/c",
            ),
            (Scheme::Https, "a.example", "/b/", "https://a.example/b/."),
            (
                Scheme::Https,
                "a.example",
                "/b/",
                "https://a.example/b/c/..",
            ),
            (Scheme::Https, "a.example", "/", "https://a.example/.."),
            (Scheme::Https, "a.example", "/...", "https://a.example/..."),
            (Scheme::Https, "a.example", "/.b", "https://a.example/.b"),
        ] {
            let (found, authority) = (
                check(scheme, authority, path, htu),
                authority.to_lowercase(),
            );
            let port = scheme.default_port();
            let host = authority.strip_suffix(port).unwrap_or(&authority);
            let expected = format!("{}{host}{path}", scheme.url_prefix());
            assert_eq!(found, Ok(expected), "{htu}");
        }
    }

    #[test]
    fn rejects_every_other_difference() {
        use UrlFault::{Fragment, Host, NotAbsolute, Path, UserInfo};
        for (htu, expected) in [
            ("", NotAbsolute),
            ("/b", NotAbsolute),
            ("//a.example/b", NotAbsolute),
            ("a.example/b", NotAbsolute),
            ("https:a.example/b", NotAbsolute),
            ("https:/a.example/b", NotAbsolute),
            ("https:\\\\a.example/b", NotAbsolute),
            ("https:///a.example/b", NotAbsolute),
            ("https://", NotAbsolute),
            ("https://?a.example/b", NotAbsolute),
            (" https://a.example/b", NotAbsolute),
            ("ftp://a.example/b", NotAbsolute),
            ("wss://a.example/b", NotAbsolute),
            ("\u{212a}ttps://a.example/b", NotAbsolute),
            ("https://a.example\\/b", NotAbsolute),
            ("https://a.exa\tmple/b", NotAbsolute),
            ("https://a.ex%61mple/b", NotAbsolute),
            ("https://a.example:65979/b", NotAbsolute),
            ("https://a.example:443:443/b", NotAbsolute),
            ("https://[::1/b", NotAbsolute),
            ("https://a.example/b#", Fragment),
            ("https://a.example/b?c#d", Fragment),
            ("https://@a.example/b", UserInfo),
            ("https://a.example@b.example/b", UserInfo),
            ("https://a.example:443@a.example/b", UserInfo),
            ("http://a.example/b", UrlFault::Scheme),
            ("http://a.example:443/b", UrlFault::Scheme),
            ("https://b.example/b", Host),
            ("https://a.example.org/b", Host),
            ("https://x.a.example/b", Host),
            ("https://a.example./b", Host),
            ("https://a.example:80/b", Host),
            ("https://a.example:8443/b", Host),
            ("https://a.example", Path),
            ("https://a.example/", Path),
            ("https://a.example/b/", Path),
            ("https://a.example//b", Path),
            ("https://a.example/B", Path),
            ("https://a.example/b;c", Path),
            ("https://a.example/b%3Fc", Path),
            ("https://a.example/%62", Path),
            ("https://a.example/b%20", Path),
            ("https://a.example/b ", Path),
            ("https://a.example/b\n", Path),
            ("https://a.example\u{2f}c/..;/b", Path),
            ("https://a.example/c\\..\\b", Path),
            ("https://a.example/%252e%252e/b", Path),
        ] {
            assert_eq!(
                check(Scheme::Https, "a.example", "/b", htu),
                Err(expected),
                "{htu}"
            );
        }
    }

    #[test]
    fn matches_no_url_of_a_request_without_a_valid_host() {
        for authority in ["", "a@b", "a/b", "a b"] {
            let found = check(Scheme::Https, authority, "/b", "https://a/b");
            assert_eq!(found, Err(UrlFault::Host), "{authority}");
        }
    }
}
