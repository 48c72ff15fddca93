//! URLs of services that the gate calls itself.

use std::net::IpAddr;

use http::Uri;
use http::uri::Authority;

use crate::config::{ConfigDocument, KeyPath};

/// Problem of a URL with user information: the configuration file holds no secrets.
pub(super) const HAS_CREDENTIALS: &str =
    "must not contain a user name or a password: the gate would not send them";

/// Kind of URL, for messages.
pub(super) struct UrlKind {
    /// Example of a valid URL.
    pub(super) example: &'static str,
    /// Risk of plaintext HTTP, in the form "would ... without TLS, ...".
    pub(super) risk: &'static str,
}

/// Parses an `http://` or `https://` URL and reports problems.
pub(super) fn parse(
    document: &mut ConfigDocument,
    path: &KeyPath,
    text: &str,
    allow_http: bool,
    kind: &UrlKind,
) -> Option<Uri> {
    let url: Option<Uri> = text.parse().ok();
    let authority = url.as_ref().and_then(Uri::authority);
    if authority.map_or(text, Authority::as_str).contains('@') {
        document.report(path.clone(), HAS_CREDENTIALS);
        return None;
    }
    let UrlKind { example, risk } = kind;
    let Some(url) = url.filter(|url| matches!(url.scheme_str(), Some("http" | "https"))) else {
        let meant = meant(text, example);
        document.report(
            path.clone(),
            format!("`{text}` is not a valid URL; {meant}"),
        );
        return None;
    };
    if url.scheme_str() == Some("http") && !allow_http && !is_this_machine(&url) {
        document.report(
            path.clone(),
            format!("{risk}; use `https://`, or set `allow_http = true`"),
        );
    }
    Some(url)
}

/// Fix for an invalid URL: the same text with `https://`, or an example.
pub(super) fn meant(text: &str, example: &str) -> String {
    let url: Option<Uri> = format!("https://{text}").parse().ok();
    let url = url.filter(|url| !text.contains("://") && url.host().is_some_and(is_host_like));
    match url {
        Some(url) if is_this_machine(&url) => format!("did you mean \"http://{text}\"?"),
        Some(_) => format!("did you mean \"https://{text}\"?"),
        None => format!("expected for example \"{example}\""),
    }
}

/// True if a word is likely a host: other words may be anything, such as the name of a variable.
pub(super) fn is_host_like(word: &str) -> bool {
    word.contains('.') || word.starts_with('[') || word == "localhost"
}

/// True if the host of a URL is a loopback address or `localhost`.
pub(super) fn is_this_machine(url: &Uri) -> bool {
    is_this_host(url.host().unwrap_or_default().trim_matches(['[', ']']))
}

/// True if a host, without brackets, is a loopback address or `localhost`.
pub(super) fn is_this_host(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
