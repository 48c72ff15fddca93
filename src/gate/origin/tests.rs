use http::Request;
use http::request::Parts;

use super::*;

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn inbound(head: Parts, scheme: Scheme) -> Inbound {
    let inbound = Inbound::plain(head);
    Inbound { scheme, ..inbound }
}

#[test]
fn accepts_an_origin_in_the_form_that_browsers_send() {
    for valid in [
        "https://app.example",
        "http://localhost:3000",
        "https://app.example:80",
        "http://[::1]:8080",
        "http://127.0.0.1",
        "capacitor://localhost",
        "chrome-extension://abcdef",
    ] {
        assert_eq!(
            Origin::new(valid).map(|origin| origin.0).as_deref(),
            Some(valid)
        );
    }
    for invalid in [
        "",
        "*",
        "null",
        "app.example",
        "https://",
        "://app.example",
        "https://app.example/",
        "https://app.example?",
        "https://App.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:",
        "https://app.example:0443",
        "https://app.example:+44",
        "https://app.example:70000",
        "https://a@app.example",
        "https://*.example",
        "https://app.example https://b.example",
    ] {
        assert_eq!(Origin::new(invalid), None, "{invalid}");
    }
}

#[test]
fn accepts_a_cookie_only_from_an_allowed_page() {
    let allowed = [Origin::new("https://app.example").unwrap()];
    let (own, https) = (
        ("origin", "http://api.example:8080"),
        ("origin", "https://api.example:8080"),
    );
    let cases: &[(&str, Fields<'_>, Scheme, bool)] = &[
        // Safe methods.
        ("GET", &[], Scheme::Http, true),
        (
            "HEAD",
            &[("origin", "https://evil.example")],
            Scheme::Http,
            true,
        ),
        (
            "OPTIONS",
            &[("sec-fetch-site", "cross-site")],
            Scheme::Http,
            true,
        ),
        // Unsafe methods.
        ("POST", &[], Scheme::Http, false),
        (
            "POST",
            &[("origin", "https://app.example")],
            Scheme::Http,
            true,
        ),
        ("POST", &[own], Scheme::Http, true),
        // A proxy that is not trusted terminates TLS.
        ("POST", &[https], Scheme::Http, true),
        ("POST", &[https], Scheme::Https, true),
        (
            "POST",
            &[https, ("sec-fetch-site", "same-origin")],
            Scheme::Http,
            true,
        ),
        (
            "POST",
            &[("origin", "https://api.example:8443")],
            Scheme::Http,
            false,
        ),
        // The browser knows the origin of a page that hides it (`Referrer-Policy: no-referrer`).
        (
            "POST",
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            Scheme::Http,
            true,
        ),
        (
            "POST",
            &[("origin", "null"), ("sec-fetch-site", "same-site")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("origin", "null"), ("sec-fetch-site", "none")],
            Scheme::Http,
            false,
        ),
        // A page without TLS on the same host, behind a proxy that terminates TLS.
        (
            "POST",
            &[own, ("sec-fetch-site", "cross-site")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[own, ("sec-fetch-site", "same-site")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[
                ("origin", "https://app.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            Scheme::Http,
            true,
        ),
        ("POST", &[own], Scheme::Https, false),
        (
            "POST",
            &[("origin", "http://api.example")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("origin", "http://app.example")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("origin", "https://app.example.evil.example")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("origin", "https://evil.example")],
            Scheme::Http,
            false,
        ),
        ("POST", &[("origin", "null")], Scheme::Http, false),
        ("POST", &[("origin", "")], Scheme::Http, false),
        (
            "POST",
            &[("origin", "https://app.example https://evil.example")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[
                ("origin", "https://app.example"),
                ("origin", "https://evil.example"),
            ],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("referer", "https://app.example/")],
            Scheme::Http,
            false,
        ),
        (
            "PUT",
            &[("origin", "https://evil.example")],
            Scheme::Http,
            false,
        ),
        (
            "PATCH",
            &[("origin", "https://evil.example")],
            Scheme::Http,
            false,
        ),
        (
            "DELETE",
            &[("origin", "https://evil.example")],
            Scheme::Http,
            false,
        ),
        // Without `Origin`.
        (
            "POST",
            &[("sec-fetch-site", "same-origin")],
            Scheme::Http,
            true,
        ),
        (
            "POST",
            &[("sec-fetch-site", "same-site")],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[("sec-fetch-site", "cross-site")],
            Scheme::Http,
            false,
        ),
        ("POST", &[("sec-fetch-site", "none")], Scheme::Http, false),
        (
            "POST",
            &[
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "cross-site"),
            ],
            Scheme::Http,
            false,
        ),
        (
            "POST",
            &[
                ("origin", "https://evil.example"),
                ("sec-fetch-site", "same-origin"),
            ],
            Scheme::Http,
            false,
        ),
        // WebSocket handshakes.
        (
            "GET",
            &[("connection", "upgrade"), ("upgrade", "websocket")],
            Scheme::Http,
            false,
        ),
        (
            "GET",
            &[("connection", "upgrade"), ("upgrade", "websocket"), own],
            Scheme::Http,
            true,
        ),
        (
            "GET",
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("origin", "https://evil.example"),
            ],
            Scheme::Http,
            false,
        ),
    ];
    for (method, fields, scheme, expected) in cases {
        let mut request = Request::builder().method(*method).uri("/");
        request = request.header("host", "api.example:8080");
        for (name, value) in *fields {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let found = check(&inbound(head, *scheme), &allowed);
        let expected = if *expected {
            Ok(())
        } else {
            Err(Refusal::OriginNotAllowed)
        };
        assert_eq!(found, expected, "{method} {fields:?} {scheme:?}");
    }
}

#[test]
fn treats_the_default_port_as_the_same_origin() {
    for (host, scheme, origin, expected) in [
        ("API.example:80", Scheme::Http, "http://api.example", true),
        (
            "api.example:443",
            Scheme::Https,
            "https://api.example",
            true,
        ),
        ("api.example:443", Scheme::Http, "http://api.example", false),
        ("api.example", Scheme::Http, "https://api.example", true),
        ("api.example:443", Scheme::Http, "https://api.example", true),
        ("api.example:80", Scheme::Http, "https://api.example", false),
        ("api.example", Scheme::Https, "http://api.example", false),
        (
            "api.example.evil",
            Scheme::Http,
            "https://api.example",
            false,
        ),
        ("[::1]:8080", Scheme::Http, "http://[::1]:8080", true),
    ] {
        let request = Request::post("/");
        let request = request.header("host", host).header("origin", origin);
        let head = request.body(()).unwrap().into_parts().0;
        assert_eq!(
            check(&inbound(head, scheme), &[]).is_ok(),
            expected,
            "{host} {origin}"
        );
    }
}
