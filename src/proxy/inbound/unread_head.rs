//! Responses to request heads that hyper cannot read. hyper responds to them itself, before the gate, with a bare status.
//! The socket writes the refusal of that status instead.

use http::HeaderValue;
use http::header::STRICT_TRANSPORT_SECURITY;

use crate::gate::refusal::Refusal;
use crate::proxy::respond::REALM;

/// Start of every response of hyper's to an unread head.
const CLIENT_ERROR: &[u8] = b"HTTP/1.1 4";

/// Response in place of `bare`, a complete response of hyper's without content. `None` if `bare` is no such response.
pub(super) fn response(bare: &[u8], hsts: Option<&HeaderValue>) -> Option<Vec<u8>> {
    if !bare.starts_with(CLIENT_ERROR) || !bare.ends_with(b"\r\n\r\n") {
        return None;
    }
    let text = str::from_utf8(bare).ok()?;
    let mut lines = text.lines();
    let refusal = match lines.next()?.split(' ').nth(1)? {
        "400" => Refusal::RequestMalformed,
        "414" => Refusal::TargetTooLong,
        "431" => Refusal::HeadersTooLarge,
        _ => return None,
    };
    let (status, mut headers, body) = refusal.response(REALM);
    if let Some(hsts) = hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\n",
        status.as_u16()
    );
    if let Some(date) = lines.find(|line| line.starts_with("date: ")) {
        response.extend([date, "\r\n"]);
    }
    let mut response = response.into_bytes();
    for (name, value) in &headers {
        let field = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        response.extend(field.concat());
    }
    response.extend(b"\r\n");
    response.extend(body);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Option<String> {
        let bare = format!(
            "{line}\r\nconnection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 11:19:40 GMT\r\n\r\n"
        );
        let response = response(
            bare.as_bytes(),
            Some(&HeaderValue::from_static("max-age=1")),
        )?;
        Some(String::from_utf8(response).unwrap())
    }

    #[test]
    fn explains_the_status_of_hyper() {
        for (line, reason) in [
            ("HTTP/1.1 400 Bad Request", "request_malformed"),
            ("HTTP/1.1 414 URI Too Long", "target_too_long"),
            (
                "HTTP/1.1 431 Request Header Fields Too Large",
                "headers_too_large",
            ),
        ] {
            let response = refused(line).unwrap();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(line), "{head}");
            assert_eq!(head.matches("content-length: ").count(), 1, "{head}");
            for field in [
                "connection: close",
                "date: Fri, 27 Nov 2026 11:19:40 GMT",
                "content-type: application/problem+json",
                "strict-transport-security: max-age=1",
            ] {
                assert!(head.contains(&format!("\r\n{field}")), "{head}");
            }
            assert!(
                head.contains(&format!("content-length: {}", body.len())),
                "{head}"
            );
            assert!(body.contains(reason), "{body}");
        }
    }

    #[test]
    fn leaves_every_other_response() {
        assert_eq!(refused("HTTP/1.1 200 OK"), None);
        assert_eq!(refused("HTTP/1.1 408 Request Timeout"), None);
        assert_eq!(
            response(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\nx",
                None
            ),
            None
        );
    }
}
