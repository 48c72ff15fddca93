use http::request::Parts;
use http::{HeaderValue, Request};

use super::*;

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn head(method: &str, target: &str, fields: Fields<'_>) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

/// Fields without everything that could be a token of [`every_source`].
fn strip(headers: &mut HeaderMap, websocket: bool) {
    let sources = every_source();
    let filter = sources.filter(headers, websocket);
    let mut left = HeaderMap::new();
    for (name, value) in &*headers {
        if let Some(value) = filter.value(name, value.as_bytes()) {
            left.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
    }
    if let Some(rest) = filter.subprotocols() {
        let rest = HeaderValue::from_bytes(rest).unwrap();
        left.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    }
    *headers = left;
}

/// Limit of these tests.
const MAX: usize = DEFAULT_MAX_TOKEN_BYTES;

fn malformed(fault: TokenFault) -> Result<&'static str, Refusal> {
    Err(Refusal::TokenMalformed(fault))
}

fn missing(near_miss: Option<NearMiss>) -> Result<&'static str, Refusal> {
    Err(Refusal::TokenMissing(MissingToken {
        sources: "`Authorization`".into(),
        near_miss,
    }))
}

#[test]
fn accepts_exactly_one_bearer_token() {
    let long = format!("Bearer {}", "a".repeat(MAX + 1));
    let cases: &[(&[&str], Result<&str, Refusal>)] = &[
        (&["Bearer a.b.c"], Ok("a.b.c")),
        (&["bearer a.b.c"], Ok("a.b.c")),
        (&["BEARER a.b.c"], Ok("a.b.c")),
        (&[], missing(None)),
        (&[""], missing(None)),
        (&["Bearer"], missing(Some(NearMiss::NoToken))),
        (&["Bearer "], missing(Some(NearMiss::NoToken))),
        (&["Basic YTpi"], missing(Some(NearMiss::OtherScheme))),
        (&["Token a.b.c"], missing(Some(NearMiss::OtherScheme))),
        (&["a.b.c"], missing(Some(NearMiss::NoScheme))),
        (&["Bearer:a.b.c"], missing(Some(NearMiss::OtherScheme))),
        (&["Bearer\ta.b.c"], missing(Some(NearMiss::OtherScheme))),
        (
            &["Bearer Bearer a.b.c"],
            malformed(TokenFault::SchemeRepeated),
        ),
        (&["Bearer  a.b.c"], malformed(TokenFault::WhiteSpace)),
        (&["Bearer a.b.c "], malformed(TokenFault::WhiteSpace)),
        (
            &["Bearer a.b.c, Bearer d.e.f"],
            malformed(TokenFault::Several),
        ),
        (&["Bearer \"a.b.c\""], malformed(TokenFault::Quoted)),
        (&["Bearer a.b.c="], malformed(TokenFault::Padding)),
        (&["Bearer a.b+.c"], malformed(TokenFault::StandardAlphabet)),
        (&["Bearer a.b.ä"], malformed(TokenFault::NotAscii)),
        (&["Bearer {payload:1}"], malformed(TokenFault::Character)),
        (&[&long], malformed(TokenFault::TooLong(MAX))),
        (
            &["Bearer a.b.c", "Bearer a.b.c"],
            Err(Refusal::TokenRepeated),
        ),
        (&["Bearer a.b.c", "Basic YTpi"], Err(Refusal::TokenRepeated)),
        (&["", "Bearer a.b.c"], Err(Refusal::TokenRepeated)),
    ];
    for (values, expected) in cases {
        let fields: Vec<_> = values
            .iter()
            .map(|value| ("authorization", *value))
            .collect();
        let inbound = Inbound::plain(head("GET", "/", &fields));
        let sources = TokenSources::default();
        let found = sources.find(&inbound, MAX);
        let found = found.map(|found| found.text.into_owned());
        let expected = expected.clone().map(str::to_owned);
        assert_eq!(found, expected, "{values:?}");
    }
}

#[test]
fn names_the_places_where_a_route_looks() {
    let Err(Refusal::TokenMissing(missing)) =
        every_source().find(&Inbound::plain(head("GET", "/", &[])), MAX)
    else {
        panic!("no refusal");
    };
    assert_eq!(
        missing.to_string(),
        "Sign in first: this path needs a bearer token in `Authorization`, the header `x-token`, the cookie `session`, \
         the query parameter `access_token` or the subprotocol after `bearer`."
    );
}

/// CGI (RFC 3875 section 4.1.18) and WSGI servers read each of these as `X-Token`.
const SPELLINGS: [&str; 5] = [
    "x_token",
    "x.token",
    "http_x_token",
    "http-x-token",
    "xtoken",
];

#[test]
fn another_spelling_of_a_header_counts_as_a_second_token_and_never_as_the_first() {
    for spelling in SPELLINGS {
        for (fields, expected) in [
            (&[(spelling, "a.b.c")][..], "token_missing"),
            (&[(spelling, "")], "token_missing"),
            (
                &[("x-token", "a.b.c"), (spelling, "a.b.c")],
                "token_repeated",
            ),
            (
                &[("cookie", "session=a.b.c"), (spelling, "d")],
                "token_repeated",
            ),
        ] {
            assert_eq!(found(&head("GET", "/", fields)), expected, "{fields:?}");
        }
        let mut forwarded = head(
            "GET",
            "/",
            &[("x-token", "a"), (spelling, "b"), ("x-tokens", "c")],
        );
        strip(&mut forwarded.headers, false);
        let left: Vec<&str> = forwarded.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-tokens"], "{spelling}");
    }
    for spelling in [
        "http_authorization",
        "http_cookie",
        "sec_websocket_protocol",
    ] {
        let fields = &[(AUTHORIZATION, "Bearer a.b.c"), (spelling, "Bearer d.e.f")];
        assert_eq!(
            found(&head("GET", "/", fields)),
            "token_repeated",
            "{spelling}"
        );
        let mut forwarded = head("GET", "/", fields);
        strip(&mut forwarded.headers, false);
        assert!(forwarded.headers.is_empty(), "{spelling}");
    }
}

#[test]
fn accepts_a_token_up_to_the_limit_of_the_issuers() {
    let token = "a".repeat(10_000);
    let value = format!("Bearer {token}");
    let inbound = Inbound::plain(head("GET", "/", &[(AUTHORIZATION, &value)]));
    let sources = TokenSources::default();
    assert!(sources.find(&inbound, 10_000).is_ok());
    let refusal = sources.find(&inbound, 9_999).unwrap_err();
    assert_eq!(
        refusal.detail(),
        "The token is longer than 9999 bytes, the limit of this service."
    );
}

/// `k8s.io/apiserver/pkg/authentication/request/websocket/protocol_test.go`: the token in base64url without padding.
#[test]
fn reads_a_token_inside_a_subprotocol_as_kubernetes_does() {
    let (missing, malformed, repeated) = ("token_missing", "token_malformed", "token_repeated");
    let token = "a.b.c in the subprotocol after `bearer`";
    let cases: &[(&[&str], &str, &[&str])] = &[
        // `YS5iLmM` is `a.b.c`.
        (
            &["base64url.bearer.authorization.k8s.io.YS5iLmM"],
            token,
            &[],
        ),
        (
            &["base64url.bearer.authorization.k8s.io.YS5iLmM, chat"],
            token,
            &["chat"],
        ),
        (
            &["chat", "base64url.bearer.authorization.k8s.io.YS5iLmM"],
            token,
            &["chat"],
        ),
        (
            &["base64url.bearer.authorization.k8s.io., chat"],
            missing,
            &["chat"],
        ),
        (
            &["base64url.bearer.authorization.k8s.io, chat"],
            missing,
            &["base64url.bearer.authorization.k8s.io, chat"],
        ),
        (
            &["base64url.bearer.authorization.k8s.io.YS5iLmM=, chat"],
            malformed,
            &["chat"],
        ),
        (
            &["base64url.bearer.authorization.k8s.io.a, chat"],
            malformed,
            &["chat"],
        ),
        (
            &["base64url.bearer.authorization.k8s.io._w, chat"],
            malformed,
            &["chat"],
        ),
        (
            &["bearer, a.b.c, base64url.bearer.authorization.k8s.io.YS5iLmM"],
            repeated,
            &[],
        ),
        (
            &[
                "base64url.bearer.authorization.k8s.io.YS5iLmM, base64url.bearer.authorization.k8s.io.YS5iLmM, chat",
            ],
            repeated,
            &["chat"],
        ),
    ];
    for (offered, expected, left) in cases {
        let fields = offered
            .iter()
            .map(|value| ("sec-websocket-protocol", *value));
        let handshake: Vec<_> = UPGRADE.into_iter().chain(fields.clone()).collect();
        let mut handshake = head("GET", "/", &handshake);
        assert_eq!(found(&handshake), *expected, "{offered:?}");
        strip(&mut handshake.headers, true);
        let kept: Vec<_> = handshake
            .headers
            .get_all("sec-websocket-protocol")
            .iter()
            .collect();
        assert_eq!(kept, *left, "{offered:?}");
    }
    let marker = Subprotocol::new("bearer").unwrap();
    let offers = |value| {
        let head = head("GET", "/", &[("sec-websocket-protocol", value)]);
        marker.offered_in(&head.headers).is_some()
    };
    assert!(offers("chat, bearer, a.b.c"));
    assert!(!offers(
        "chat, base64url.bearer.authorization.k8s.io.YS5iLmM"
    ));
}

/// One source of each kind.
fn every_source() -> TokenSources {
    TokenSources {
        sources: vec![
            TokenSource::Authorization,
            TokenSource::Header(HeaderName::from_static("x-token")),
            TokenSource::Cookie(CookieName::new("session").unwrap()),
            TokenSource::Query(ParameterName::new("access_token").unwrap()),
            TokenSource::WebSocket(Subprotocol::new("bearer").unwrap()),
        ],
        ..TokenSources::default()
    }
}

const AUTHORIZATION: &str = "authorization";
const UPGRADE: [(&str, &str); 2] = [("connection", "upgrade"), ("upgrade", "websocket")];

/// Token and source, or the reason of the refusal.
fn found(head: &Parts) -> String {
    let sources = every_source();
    match sources.find(&Inbound::plain(head.clone()), MAX) {
        Ok(found) => format!(
            "{} in {}",
            found.token().expose(),
            sources.sources[found.source.unwrap()]
        ),
        Err(refusal) => refusal.reason().to_owned(),
    }
}

#[test]
fn reads_each_source_in_its_own_form() {
    let of_a_cookie = "a.b.c in the cookie `session`";
    let of_a_header = "a.b.c in the header `x-token`";
    let of_the_query = "a.b.c in the query parameter `access_token`";
    let (missing, malformed, repeated) = ("token_missing", "token_malformed", "token_repeated");
    let cases: &[(&str, Fields<'_>, &str)] = &[
        ("/", &[], missing),
        (
            "/",
            &[(AUTHORIZATION, "Bearer a.b.c")],
            "a.b.c in `Authorization`",
        ),
        // Another header.
        ("/", &[("x-token", "a.b.c")], of_a_header),
        ("/", &[("x-token", "Bearer a.b.c")], of_a_header),
        ("/", &[("x-token", "BEARER a.b.c")], of_a_header),
        ("/", &[("x-token", "")], missing),
        ("/", &[("x-token", "Bearer")], missing),
        ("/", &[("x-token", "Basic a.b.c")], malformed),
        ("/", &[("x-token", "a.b.c, d.e.f")], malformed),
        ("/", &[("x-token", "ä")], malformed),
        ("/", &[("x-token", "a.b.c"), ("x-token", "a.b.c")], repeated),
        ("/", &[("x_token", "a.b.c")], missing),
        // Cookie.
        ("/", &[("cookie", "session=a.b.c")], of_a_cookie),
        ("/", &[("cookie", "a=1;session=a.b.c ; b=2;")], of_a_cookie),
        (
            "/",
            &[("cookie", "a=ä"), ("cookie", "session=a.b.c")],
            of_a_cookie,
        ),
        ("/", &[("cookie", "__Secure-session=a.b.c")], of_a_cookie),
        ("/", &[("cookie", "__Host-session=a.b.c")], of_a_cookie),
        (
            "/",
            &[("cookie", "Session=a.b.c; xsession=a.b.c; session2=a.b.c")],
            missing,
        ),
        (
            "/",
            &[("cookie", "__host-session=a.b.c; __Http-session=a.b.c")],
            missing,
        ),
        (
            "/",
            &[("cookie", "a=session=a.b.c; a.b.c; =a.b.c")],
            missing,
        ),
        ("/", &[("cookie", "session=; session2=a.b.c")], missing),
        ("/", &[("cookie", "session")], missing),
        // RFC 6265 section 4.1.1: a value may be in double quotes.
        ("/", &[("cookie", "session=\"a.b.c\"")], of_a_cookie),
        (
            "/",
            &[("cookie", "a=1; session=\"a.b.c\"; b=2")],
            of_a_cookie,
        ),
        (
            "/",
            &[("cookie", "session.0=\"a.\"; session.1=\"b.c\"")],
            of_a_cookie,
        ),
        ("/", &[("cookie", "session=\"\"")], missing),
        ("/", &[("cookie", "session=\"a.b.c")], malformed),
        ("/", &[("cookie", "session=a.b.c\"")], malformed),
        ("/", &[("cookie", "session=\"")], malformed),
        ("/", &[("cookie", "session=\"\"a.b.c\"\"")], malformed),
        ("/", &[("cookie", "session=a.b.c, d")], malformed),
        ("/", &[("cookie", "session=a.b.ä")], malformed),
        ("/", &[("cookie", "session=a.b.c; session=a.b.c")], repeated),
        ("/", &[("cookie", "session=a.b.c; session=")], repeated),
        ("/", &[("cookie", "session=a.b.c; session")], repeated),
        (
            "/",
            &[
                ("cookie", "session=a.b.c; a=1"),
                ("cookie", "session=a.b.c"),
            ],
            repeated,
        ),
        (
            "/",
            &[("cookie", "session=a.b.c; __Host-session=a.b.c")],
            repeated,
        ),
        // Cookie in pieces.
        (
            "/",
            &[("cookie", "session.0=a.; session.1=b.c")],
            of_a_cookie,
        ),
        (
            "/",
            &[("cookie", "session.1=b.c; a=1"), ("cookie", "session.0=a.")],
            of_a_cookie,
        ),
        ("/", &[("cookie", "session.0=a.b.c")], of_a_cookie),
        (
            "/",
            &[("cookie", "__Secure-session.1=c; __Secure-session.0=a.b.")],
            of_a_cookie,
        ),
        (
            "/",
            &[(
                "cookie",
                "session.10=l; session.9=k; session.8=i; session.7=h; session.6=g; session.5=f; \
                         session.4=e; session.3=d; session.2=c; session.1=b; session.0=a",
            )],
            "abcdefghikl in the cookie `session`",
        ),
        ("/", &[("cookie", "session.1=b.c")], malformed),
        ("/", &[("cookie", "session.0=a.; session.2=c")], malformed),
        (
            "/",
            &[("cookie", "session.0=a.; session.0=a.; session.1=b.c")],
            repeated,
        ),
        (
            "/",
            &[("cookie", "session.0=a.; session.1=b.c; session=a.b.c")],
            repeated,
        ),
        (
            "/",
            &[("cookie", "session.0=a.; __Host-session.1=b.c")],
            repeated,
        ),
        (
            "/",
            &[(
                "cookie",
                "session.00=a.b.c; session.x=a; session.=a; session.0.0=a",
            )],
            missing,
        ),
        // Query.
        ("/?access_token=a.b.c", &[], of_the_query),
        ("/?a=1&access_token=a.b.c&b", &[], of_the_query),
        ("/?access_token=", &[], missing),
        ("/?access_token", &[], missing),
        (
            "/?Acces_token=a.b.c&xaccess_token=a.b.c&access_tokens=a.b.c&access-token=a.b.c",
            &[],
            missing,
        ),
        // Other spellings: ASP.NET ignores the case, PHP folds dots, spaces and brackets, Rack 2 splits at `;`.
        ("/?Access_Token=a.b.c", &[], malformed),
        ("/?access.token=a.b.c", &[], malformed),
        ("/?access+token=a.b.c", &[], malformed),
        ("/?%20access_token=a.b.c", &[], malformed),
        ("/?access_token[]=a.b.c", &[], malformed),
        ("/?access_token%5Bx%5D=a.b.c", &[], malformed),
        ("/?access_token=a.b.c&ACCESS_TOKEN=d", &[], repeated),
        ("/?access.token=d&access_token=a.b.c", &[], repeated),
        ("/?a=1;access_token=d&access_token=a.b.c", &[], repeated),
        ("/?access_token=a.b.c;a=1", &[], malformed),
        ("/?a=1;access_token=a.b.c", &[], malformed),
        (
            "/?Access_Token=d",
            &[(AUTHORIZATION, "Bearer a.b.c")],
            repeated,
        ),
        ("/?a=access_token=a.b.c", &[], missing),
        ("/?access_token=a%2Eb.c", &[], malformed),
        ("/?access_token=a+b", &[], malformed),
        ("/?access%5Ftoken=a.b.c", &[], malformed),
        ("/?access_token=a.b.c&access_token=a.b.c", &[], repeated),
        ("/?access_token=a.b.c&access_token", &[], repeated),
        ("/?access_token=a.b.c&access%5ftoken=a.b.c", &[], repeated),
        // Two sources.
        (
            "/?access_token=a.b.c",
            &[(AUTHORIZATION, "Bearer a.b.c")],
            repeated,
        ),
        (
            "/",
            &[(AUTHORIZATION, "Bearer a.b.c"), ("cookie", "session=a.b.c")],
            repeated,
        ),
        (
            "/",
            &[(AUTHORIZATION, "Bearer a.b.c"), ("cookie", "session=\"\"")],
            "a.b.c in `Authorization`",
        ),
        (
            "/",
            &[(AUTHORIZATION, "Bearer !"), ("x-token", "a.b.c")],
            repeated,
        ),
        ("/", &[("x-token", "!"), ("cookie", "session=!")], repeated),
        (
            "/",
            &[("x-token", "a.b.c"), ("cookie", "session=")],
            of_a_header,
        ),
        (
            "/",
            &[(AUTHORIZATION, "Basic YTpi"), ("x-token", "a.b.c")],
            of_a_header,
        ),
    ];
    for (target, fields, expected) in cases {
        let result = found(&head("GET", target, fields));
        assert_eq!(result, *expected, "{target} {fields:?}");
    }
}

#[test]
fn reads_a_subprotocol_only_in_a_websocket_handshake() {
    let token = "a.b.c in the subprotocol after `bearer`";
    let (missing, malformed, repeated) = ("token_missing", "token_malformed", "token_repeated");
    let cases: &[(&[&str], &str)] = &[
        (&["bearer, a.b.c"], token),
        (&["bearer,a.b.c,chat"], token),
        (&["chat, bearer, a.b.c, other"], token),
        (&["chat", "bearer", "a.b.c"], token),
        (&["bearer,, a.b.c"], token),
        (&["bearer"], missing),
        (&["chat, bearer"], missing),
        (&["Bearer, a.b.c"], missing),
        (&["a.b.c"], missing),
        (&["bearer a.b.c"], missing),
        (&["bearer, a~b"], malformed),
        (&["bearer, ä"], malformed),
        (&["bearer, a.b.c, bearer, a.b.c"], repeated),
        (&["bearer, a.b.c", "bearer"], repeated),
    ];
    for (offered, expected) in cases {
        let fields = offered
            .iter()
            .map(|value| ("sec-websocket-protocol", *value));
        let handshake: Vec<_> = UPGRADE.into_iter().chain(fields.clone()).collect();
        assert_eq!(
            found(&head("GET", "/", &handshake)),
            *expected,
            "{offered:?}"
        );
        let plain: Vec<_> = fields.collect();
        assert_eq!(found(&head("GET", "/", &plain)), missing, "{offered:?}");
        assert_eq!(
            found(&head("POST", "/", &handshake)),
            missing,
            "{offered:?}"
        );
    }
}

#[test]
fn strips_only_the_token() {
    let left = |method: &str, target: &str, fields: &[(&str, &str)]| {
        let mut head = head(method, target, fields);
        let websocket = crate::proxy::websocket::is_opened_by(&head);
        strip(&mut head.headers, websocket);
        let path = CanonicalPath::parse(head.uri.path()).unwrap();
        let target = RequestTarget::read(&head.uri, path).unwrap();
        let target = every_source().strip_target(Cow::Owned(target)).into_owned();
        let fields = head
            .headers
            .iter()
            .filter(|(name, _)| !UPGRADE.iter().any(|(plain, _)| name == plain));
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        (target.as_str().to_owned(), fields)
    };
    let headers: &[(Fields<'_>, &[&str])] = &[
        (
            &[
                (AUTHORIZATION, "Bearer a.b.c"),
                ("x-token", "a"),
                ("x-tokens", "b"),
            ],
            &["x-tokens: b"],
        ),
        (&[("cookie", "session=a.b.c")], &[]),
        (&[("cookie", "session=a.b.c;")], &[]),
        (&[("cookie", "a=1; session=a.b.c")], &["cookie: a=1"]),
        (&[("cookie", "session=a.b.c; a=1")], &["cookie: a=1"]),
        (
            &[("cookie", "a=1;  b=\"ä\" ;session=a.b.c;c;; =d")],
            &["cookie: a=1;  b=\"ä\" ;c;; =d"],
        ),
        (&[("cookie", " a=1 ;b=2;")], &["cookie:  a=1 ;b=2;"]),
        (
            &[
                ("cookie", "a=1; session.1=b"),
                ("cookie", "session.0=a"),
                ("cookie", "session.x=1"),
            ],
            &["cookie: a=1", "cookie: session.x=1"],
        ),
        (
            &[(
                "cookie",
                "__Secure-session=a; __Host-session.0=a; __host-session=a",
            )],
            &["cookie: __host-session=a"],
        ),
        // Outside a handshake.
        (&[("sec-websocket-protocol", "bearer, a.b.c, chat")], &[]),
        (
            &[("sec-websocket-protocol", "chat, a.b.c")],
            &["sec-websocket-protocol: chat, a.b.c"],
        ),
    ];
    for (fields, expected) in headers {
        assert_eq!(left("POST", "/", fields).1, *expected, "{fields:?}");
    }
    for (offered, expected) in [
        (&["bearer, a.b.c"][..], None),
        (&["bearer, a.b.c, chat"], Some("chat")),
        (&["chat,  bearer,a.b.c,other"], Some("chat, other")),
        (&["chat, bearer", "a.b.c, other"], Some("chat, other")),
        (&["chat,other"], Some("chat,other")),
    ] {
        let fields = offered
            .iter()
            .map(|value| ("sec-websocket-protocol", *value));
        let handshake: Vec<_> = UPGRADE.into_iter().chain(fields).collect();
        let expected: Vec<String> = expected
            .map(|rest| format!("sec-websocket-protocol: {rest}"))
            .into_iter()
            .collect();
        assert_eq!(left("GET", "/", &handshake).1, expected, "{offered:?}");
    }
    for (target, expected) in [
        ("/", "/"),
        ("/?", "/?"),
        ("/a%20b?", "/a%20b?"),
        ("/?a=%20&b", "/?a=%20&b"),
        ("/a%20b;c?access_token=a.b.c", "/a%20b;c"),
        ("/?access_token=a.b.c&", "/?"),
        ("/?a=1&access_token=a.b.c&b=%2F&&c", "/?a=1&b=%2F&&c"),
        ("/?access_token=a.b.c&a=1", "/?a=1"),
        ("/?a=1&access_token", "/?a=1"),
        (
            "/?access%5Ftoken=a.b.c&access_token=d&x=?access_token=1",
            "/?x=?access_token=1",
        ),
    ] {
        assert_eq!(left("GET", target, &[]).0, expected, "{target}");
    }
}

#[test]
fn finds_cookie_names_that_overlap() {
    let name = |name| CookieName::new(name).unwrap();
    for other in [
        "session",
        "__Host-session",
        "__Secure-session",
        "session.0",
        "__Host-session.1",
    ] {
        assert!(name("session").overlaps(&name(other)), "{other}");
        assert!(name(other).overlaps(&name("session")), "{other}");
    }
    for other in ["Session", "session2", "session.x", "__Host-__Host-session"] {
        assert!(!name("session").overlaps(&name(other)), "{other}");
    }
    assert!(!name("__Host-session").overlaps(&name("__Secure-session")));
}

#[test]
fn recognizes_a_session_token() {
    let name = "sVeJ2xKq0NzYwLb7Rt5Hc9Mf3Gp1Du8A";
    let signed = format!("{name}.3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let encoded = signed.replace('+', "%2B").replace('=', "%3D");
    for token in [name, &signed, &encoded] {
        assert_eq!(
            BearerToken::new(token, MAX).unwrap_err(),
            Refusal::TokenOpaque,
            "{token}"
        );
    }
    for token in [
        &format!("{name}.e30.AAAA"),
        &name[1..],
        &format!("{name}.e30"),
    ] {
        assert_ne!(
            BearerToken::new(token, MAX).err(),
            Some(Refusal::TokenOpaque),
            "{token}"
        );
    }
}

#[test]
fn never_prints_a_token() {
    let token = BearerToken::new("secret.secret.secret", MAX).unwrap();
    assert_eq!(format!("{token:?}"), "BearerToken(..)");
}
