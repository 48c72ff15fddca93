use http::Request;

use super::*;

#[test]
fn accepts_an_origin_or_a_wildcard_for_one_label() {
    for valid in [
        "https://app.example",
        "http://localhost:3000",
        "https://*.app.example",
        "http://*.app.example:8080",
    ] {
        assert!(OriginPattern::new(valid).is_some(), "{valid}");
    }
    for invalid in [
        "",
        "*",
        "*.app.example",
        "https://*",
        "https://*.",
        "https://*.com",
        "https://*.localhost:3000",
        "https://*.*.example",
        "https://a.*.example",
        "https://a*.app.example",
        "https://*app.example",
        "https://*.app.example/",
        "https://*.app.example:*",
        "https://*.app..example",
        "https://*.app.example.",
        "https://*.0.0.1",
        "https://*.App.example",
        "https://*.app.example:443",
        "*://app.example",
    ] {
        assert_eq!(OriginPattern::new(invalid), None, "{invalid}");
    }
}

#[test]
fn compares_origins_byte_for_byte() {
    for (pattern, origin, expected) in [
        ("https://app.example", "https://app.example", true),
        ("https://app.example", "http://app.example", false),
        ("https://app.example", "https://app.example:443", false),
        ("https://app.example", "https://app.example:8443", false),
        ("https://app.example", "https://app.example/", false),
        ("https://app.example", "https://APP.example", false),
        ("https://app.example", "https://app.example.", false),
        (
            "https://app.example",
            "https://app.example.evil.test",
            false,
        ),
        (
            "https://app.example",
            "https://evil.test/https://app.example",
            false,
        ),
        ("https://app.example", "null", false),
        ("https://app.example", "", false),
        ("https://*.app.example", "https://a.app.example", true),
        ("https://*.app.example", "https://pr-7_x.app.example", true),
        ("https://*.app.example", "https://app.example", false),
        ("https://*.app.example", "https://.app.example", false),
        ("https://*.app.example", "https://*.app.example", false),
        ("https://*.app.example", "https://a.b.app.example", false),
        ("https://*.app.example", "http://a.app.example", false),
        ("https://*.app.example", "https://a.app.example:8443", false),
        ("https://*.app.example", "https://aapp.example", false),
        (
            "https://*.app.example",
            "https://evil.test/.app.example",
            false,
        ),
        (
            "https://*.app.example",
            "https://evil.test#.app.example",
            false,
        ),
        ("https://*.app.example", "https://a@evil.app.example", false),
        ("https://*.app.example", "https://A.app.example", false),
        ("https://*.app.example", "null", false),
        ("http://*.app.example:81", "http://a.app.example:81", true),
        ("http://*.app.example:81", "http://a.app.example:8", false),
    ] {
        let pattern = OriginPattern::new(pattern).unwrap();
        assert_eq!(pattern.matches(origin), expected, "{pattern:?} {origin}");
    }
}

#[test]
fn recognizes_a_preflight_by_method_origin_and_requested_method() {
    let origin = ("origin", "https://app.example");
    let method = ("access-control-request-method", "PUT");
    for (verb, fields, expected) in [
        ("OPTIONS", &[origin, method][..], true),
        ("OPTIONS", &[origin], false),
        ("OPTIONS", &[method], false),
        ("OPTIONS", &[origin, origin, method], false),
        ("OPTIONS", &[origin, method, method], false),
        (
            "OPTIONS",
            &[origin, ("access-control-request-method", "")],
            false,
        ),
        (
            "OPTIONS",
            &[origin, ("access-control-request-method", "P T")],
            false,
        ),
        ("GET", &[origin, method], false),
        ("POST", &[origin, method], false),
    ] {
        let mut request = Request::builder().method(verb);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        assert_eq!(
            PreflightRequest::of(&head).is_some(),
            expected,
            "{verb} {fields:?}"
        );
    }
}

#[test]
fn appends_to_an_existing_vary() {
    for (before, expected) in [
        (&[][..], "origin"),
        (&["Accept-Encoding"], "Accept-Encoding, origin"),
        (
            &["Accept", "Cookie, Origin"],
            "Accept, Cookie, Origin, origin",
        ),
        (&["*"], "*"),
        (&["Accept, *"], "Accept, *"),
    ] {
        let mut headers = HeaderMap::new();
        for value in before {
            headers.append(VARY, HeaderValue::from_static(value));
        }
        vary(&mut headers, VARY_BY_ORIGIN);
        let found: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(found, [expected], "{before:?}");
    }
}
