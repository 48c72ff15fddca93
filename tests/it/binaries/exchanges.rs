//! `explain` and `doctor` with credentials that only their issuer can verify, against a server that behaves like Better
//! Auth and an OAuth provider.

use serde_json::{Value, json};

use crate::harness::{Arrived, Exchange, Issuer, Key, Next, Upstream};

use super::Directory;
use super::program::{Ended, keep_secret};
use super::upstream::Request;

/// Session of alice, as its cookie has it.
const SESSION: &str =
    "aliceAliceAliceAliceAliceAlice12.c2lnbmF0dXJlIG9mIGEgc2Vzc2lvbiBvZiBhbGljZSE=";

/// Opaque access token of bob.
const ACCESS_TOKEN: &str = "bobBobBobBobBobBobBobBobBobBob12";

/// Host that the server accepts, besides its address.
const PUBLIC_HOST: &str = "app.example";

/// Behavior of the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Normal,
    /// Only [`PUBLIC_HOST`] is an allowed host.
    AllowedHosts,
    /// `/token` is not found.
    NoJwtPlugin,
    RateLimited,
    /// A web application, which responds with a page at every path.
    OtherApplication,
    /// Client credentials are not accepted.
    Unauthorized,
    /// The client is registered with another authentication method.
    BadRequest,
}

impl Server {
    fn start(self) -> Upstream {
        Upstream::responding(move |exchange| self.respond(exchange))
    }

    fn respond(self, exchange: &mut Exchange) -> Next {
        let Some(body) = exchange.body() else {
            return Next::Close;
        };
        let target = exchange.target();
        let path = target.split('?').next().unwrap();
        let host = exchange.head.value("host").unwrap();
        let origin = format!("http://{host}");
        match (self, path) {
            (Self::AllowedHosts, _) if host != PUBLIC_HOST => {
                exchange.respond("500 Internal Server Error", "", "")
            }
            (Self::RateLimited, "/api/auth/token") => {
                exchange.respond("429 Too Many Requests", "X-Retry-After: 10\r\n", "{}")
            }
            (Self::OtherApplication, "/api/auth/token" | "/introspect") => {
                exchange.respond("200 OK", "", "<!doctype html>")
            }
            (Self::Unauthorized, "/introspect") => {
                exchange.respond("401 Unauthorized", "", "{\"error\":\"invalid_client\"}")
            }
            (Self::BadRequest, "/introspect") => exchange.respond("400 Bad Request", "", "{}"),
            (_, "/api/auth/jwks") => {
                let keys = json!({ "keys": [Key::ed25519("of the tests").public_jwk()] });
                exchange.respond("200 OK", "", &keys.to_string())
            }
            (Self::Normal | Self::AllowedHosts | Self::Unauthorized, "/api/auth/token") => {
                if is_alice(exchange) {
                    let token = jwt_of_alice(&origin);
                    let body = json!({ "token": keep_secret(&token) });
                    exchange.respond("200 OK", "", &body.to_string())
                } else {
                    exchange.respond("401 Unauthorized", "", "{\"code\":\"UNAUTHORIZED\"}")
                }
            }
            (Self::NoJwtPlugin, "/api/auth/get-session") => {
                let body = if is_alice(exchange) {
                    json!({
                        "session": { "token": SESSION, "expiresAt": "2096-01-01T00:00:00.000Z" },
                        "user": { "id": "alice" },
                    })
                } else {
                    Value::Null
                };
                exchange.respond("200 OK", "", &body.to_string())
            }
            (_, "/introspect") => {
                let body = String::from_utf8(body).unwrap();
                let response = if body.starts_with(&format!("token={ACCESS_TOKEN}&")) {
                    json!({ "active": true, "sub": "bob", "aud": "tasks", "exp": 4_000_000_000_i64 })
                } else {
                    json!({ "active": false })
                };
                exchange.respond("200 OK", "", &response.to_string())
            }
            _ => exchange.respond("404 Not Found", "", ""),
        }
    }
}

/// Returns whether the one credential is the session of alice.
fn is_alice(exchange: &Exchange) -> bool {
    let head = &exchange.head;
    let cookie = head.values("cookie") == [format!("better-auth.session_token={SESSION}")];
    let bearer = head.values("authorization") == [format!("Bearer {SESSION}")];
    cookie != bearer
}

fn jwt_of_alice(origin: &str) -> String {
    let claims = json!({ "iss": origin, "aud": origin, "sub": "alice", "exp": 4_000_000_000_i64 });
    Key::ed25519("of the tests").sign(&claims)
}

/// Configuration with an issuer of sessions.
fn sessions(better_auth: &str) -> Directory {
    issuer(&format!("better_auth = {{ {better_auth} }}"))
}

/// Configuration with an issuer that introspects tokens.
fn introspection(server: &Upstream) -> Directory {
    let directory = issuer(&format!(
        "audience = \"tasks\"\nintrospection = {{ url = \"{}/introspect\", client_id = \"gate\", client_secret_env = \
         \"BETTER_AUTH_SECRET\" }}",
        server.url()
    ));
    keep_secret(&format!("x.{ACCESS_TOKEN}"));
    directory
}

fn issuer(keys: &str) -> Directory {
    keep_secret(SESSION);
    Directory::with(&format!(
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:9\"\n[issuers.app]\n{keys}\n\
         [[routes]]\npath = \"/api/{{user_id}}\"\naccess = {{ owner = \"user_id\" }}\n"
    ))
}

fn cookie() -> String {
    format!("better-auth.session_token={SESSION}; theme=dark")
}

fn explain(directory: &Directory, arguments: &[&str]) -> Ended {
    directory.call(&[&["explain"], arguments].concat())
}

#[test]
fn explain_exchanges_a_session() {
    let server = Server::Normal.start();
    let directory = sessions(&format!("url = \"{}\", sessions = true", server.url()));
    let url = format!("GET {}/api/auth/token", server.url());
    for (credential, words) in [
        (
            ["--cookie", &cookie()],
            "the session cookie `better-auth.session_token`",
        ),
        (["--token", SESSION], "the session token"),
    ] {
        let arguments = [&credential[..], &["GET", "/api/alice"]].concat();
        let ended = explain(&directory, &arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for text in [
            "  ok    verification        subject `alice`, issuer `app`\n",
            "\n  x-user-id: alice\n",
            &format!("\nexchange: issuer `app`, asked about {words} ({url}), returned a JWT\n"),
        ] {
            assert!(ended.stdout.contains(text), "{text}: {ended:?}");
        }
        assert!(!ended.stdout.contains("dark"), "{ended:?}");
    }
    let ended = explain(&directory, &["--cookie", &cookie(), "GET", "/api/alice"]);
    let token = "  ok    token               in the session cookie `better-auth.session_token`\n";
    assert!(ended.stdout.contains(token), "{ended:?}");
    assert!(
        ended.stdout.contains("\n  cookie: theme=(as received)\n"),
        "{ended:?}"
    );
    let ended = explain(&directory, &["--cookie", &cookie(), "GET", "/api/bob"]);
    assert!(
        ended
            .stdout
            .contains("FAIL  authorization       subject_mismatch\n"),
        "{ended:?}"
    );

    let signed_out = cookie().replace("alice", "mallo");
    let ended = explain(&directory, &["--cookie", &signed_out, "GET", "/api/alice"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("FAIL  verification        session_invalid\n"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.ends_with("), knows no such session\n"),
        "{ended:?}"
    );

    let json = [
        "--output",
        "json",
        "--cookie",
        &cookie(),
        "GET",
        "/api/alice",
    ];
    let ended = explain(&directory, &json);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["result"]["decision"], "forwarded");
    assert_eq!(
        report["exchange"],
        json!({
            "issuer": "app",
            "credential": "the session cookie `better-auth.session_token`",
            "request": url,
            "outcome": "jwt",
            "cause": null,
        })
    );
}

#[test]
fn explain_names_the_request_that_it_does_not_send_offline() {
    let server = Server::Normal.start();
    let directory = sessions(&format!("url = \"{}\", sessions = true", server.url()));
    let arguments = ["--offline", "--cookie", &cookie(), "GET", "/api/alice"];
    let ended = explain(&directory, &arguments);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let expected = format!(
        "\nexchange: issuer `app` was not asked, because of `--offline`; a gate sends the session cookie \
         `better-auth.session_token` to it: GET {}/api/auth/token\n",
        server.url()
    );
    assert!(ended.stdout.ends_with(&expected), "{ended:?}");
    server.assert_untouched();
}

#[test]
fn explain_names_the_cause_of_a_failed_exchange() {
    let (fails, other) = (Server::AllowedHosts.start(), Server::Normal.start());
    for (server, public, cause) in [
        (
            &fails,
            "",
            "status: 500 Internal Server Error: a server with `allowedHosts`",
        ),
        (
            &other,
            ", public = \"https://app.example\"",
            "the JWT of the exchange is not valid here: token_issuer: ",
        ),
    ] {
        let config = format!("url = \"{}\"{public}, sessions = true", server.url());
        let ended = explain(
            &sessions(&config),
            &["--cookie", &cookie(), "GET", "/api/alice"],
        );
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for text in ["FAIL  verification        exchange_unavailable\n", cause] {
            assert!(ended.stdout.contains(text), "{text}: {ended:?}");
        }
    }
}

#[test]
fn explain_introspects_a_token() {
    let server = Server::Normal.start();
    let directory = introspection(&server);
    let asked = format!(
        "\nexchange: issuer `app`, asked about the access token (POST {}/introspect), reports it as ",
        server.url()
    );
    for (token, expected) in [
        (ACCESS_TOKEN.to_owned(), "active"),
        (ACCESS_TOKEN.replace("bob", "eve"), "not active"),
    ] {
        let ended = explain(&directory, &["--token", &token, "GET", "/api/bob"]);
        assert_eq!(
            ended.code,
            Some(i32::from(expected != "active")),
            "{ended:?}"
        );
        assert!(
            ended.stdout.ends_with(&format!("{asked}{expected}\n")),
            "{ended:?}"
        );
    }
}

#[test]
fn names_the_settings_that_accept_an_opaque_token() {
    let issuer = Issuer::start();
    let directory = self::issuer(&format!(
        "keys = {{ jwks_url = \"{}\" }}\naudience = \"tasks\"",
        issuer.url()
    ));
    let ended = explain(&directory, &["--token", SESSION, "GET", "/api/alice"]);
    for text in [
        "FAIL  verification        token_opaque\n",
        "a session token of Better Auth needs `sessions = true`",
        "an OAuth access token needs `introspection`",
    ] {
        assert!(ended.stdout.contains(text), "{text}: {ended:?}");
    }
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn doctor_tests_the_exchange_of_sessions() {
    let server = Server::Normal.start();
    let directory = sessions(&format!("url = \"{}\", sessions = true", server.url()));
    let ended = directory.call(&["doctor", "--cookie", &cookie(), "--token", SESSION]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let host = server.url().replace("http://", "");
    for text in [
        format!(
            "ok    sessions of issuer `app`: GET http://{host}/api/auth/token rejects an unknown session; a sign-out takes \
             effect within 30s\n"
        ),
        format!("ok    `Host` of issuer `app`: the server accepts `{host}`\n"),
        "ok    rate limit of issuer `app`: not reached".to_owned(),
        "ok    session cookie of issuer `app`: `better-auth.session_token`, because".to_owned(),
        format!("ok    public URL of issuer `app`: tokens must name the origin of http://{host};"),
        "ok    token: accepted: issuer `app`, subject `alice`\n".to_owned(),
        "ok    cookie: accepted: issuer `app`, subject `alice`\n".to_owned(),
    ] {
        assert!(ended.stdout.contains(&text), "{text}: {ended:?}");
    }
    // The unknown session is sent as every other one: alone.
    let arrived = server.wait_for(2);
    let probe = arrived
        .iter()
        .find(|it| it.head.line().contains("/token?"))
        .unwrap();
    assert_eq!(probe.head.values("cookie").len(), 1);
    assert_eq!(probe.head.values("authorization").len(), 0);
}

#[test]
fn doctor_names_the_fix_of_failing_exchanges() {
    for (server, more, code, expected) in [
        (
            Server::AllowedHosts,
            ", public = \"http://app.example\"",
            1,
            [
                "FAIL  `Host` of issuer `app`: GET ",
                "fix: write `host = \"app.example\"` in `better_auth`\n",
            ],
        ),
        (
            Server::AllowedHosts,
            "",
            1,
            [
                "status: 500 Internal Server Error\n",
                "set `host` in `better_auth` to one of those hosts",
            ],
        ),
        (
            Server::AllowedHosts,
            ", public = \"https://app.example\", host = \"app.example\"",
            0,
            [
                "ok    `Host` of issuer `app`: the server accepts `app.example`\n",
                "`__Secure-better-auth.session_token`, because the public URL of the server has `https`",
            ],
        ),
        (
            Server::NoJwtPlugin,
            "",
            1,
            [
                "/api/auth/token: status: 404 Not Found\n",
                "fix: the server has no `jwt` plugin",
            ],
        ),
        (
            Server::RateLimited,
            "",
            0,
            [
                "warn  rate limit of issuer `app`: GET ",
                "429 Too Many Requests, retry after 10s\n        fix: set `rateLimit: { customRules: ",
            ],
        ),
        (
            Server::OtherApplication,
            "",
            1,
            [
                "FAIL  sessions of issuer `app`: GET ",
                "fix: the URL belongs to something else",
            ],
        ),
    ] {
        let upstream = server.start();
        let config = format!("url = \"{}\"{more}, sessions = true", upstream.url());
        let ended = sessions(&config).call(&["doctor"]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        for text in expected {
            assert!(ended.stdout.contains(text), "{text}: {ended:?}");
        }
    }
}

#[test]
fn doctor_tests_sessions_without_the_jwt_plugin() {
    let server = Server::NoJwtPlugin.start();
    let directory = sessions(&format!(
        "url = \"{}\", sessions = {{ via = \"get-session\", max_age = \"5s\" }}",
        server.url()
    ));
    let ended = directory.call(&["doctor", "--cookie", &cookie()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for text in [
        "ok    issuer `app`: no keys: it is asked about each credential\n",
        "/api/auth/get-session rejects an unknown session; a sign-out takes effect within 5s\n",
        "ok    cookie: accepted: issuer `app`, subject `alice`\n",
    ] {
        assert!(ended.stdout.contains(text), "{text}: {ended:?}");
    }
}

#[test]
fn doctor_names_the_fix_of_a_session_cookie() {
    let server = Server::Normal.start();
    let directory = sessions(&format!("url = \"{}\", sessions = true", server.url()));
    let other_prefix = format!("a=b; __Secure-shop.session_token={SESSION}");
    let no_signature = "better-auth.session_token=aliceAliceAliceAliceAliceAlice12".to_owned();
    let signed_out = cookie().replace("alice", "mallo");
    for (cookies, expected) in [
        (
            &other_prefix,
            "fix: write `sessions = { cookie_prefix = \"shop\" }`\n",
        ),
        (&no_signature, "FAIL  cookie: session_invalid: "),
        (
            &signed_out,
            "FAIL  cookie: rejected by issuer `app` (session_invalid)\n",
        ),
        (
            &"theme=dark".to_owned(),
            "FAIL  cookie: none of its names is `better-auth.session_token`",
        ),
    ] {
        let ended = directory.call(&["doctor", "--cookie", cookies]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{expected}: {ended:?}");
    }
    let public = format!(
        "url = \"{}\", public = \"https://app.example\", sessions = true",
        server.url()
    );
    let ended = sessions(&public).call(&["doctor", "--cookie", &cookie()]);
    for text in [
        "FAIL  cookie: rejected (token_issuer): ".to_owned(),
        format!("set `public = \"{}\"` in its `better_auth`\n", server.url()),
    ] {
        assert!(ended.stdout.contains(&text), "{text}: {ended:?}");
    }
}

#[test]
fn asks_each_issuer_about_a_session_with_the_same_cookie_name() {
    let (one, other, api) = (
        Server::Normal.start(),
        Server::Normal.start(),
        Upstream::start(),
    );
    keep_secret(SESSION);
    let issuers = [("one", &one), ("other", &other)].map(|(name, server)| {
        format!(
            "[issuers.{name}]\nbetter_auth = {{ url = \"{}\", sessions = true }}\n[[routes]]\npath = \"/{name}\"\naccess = \
             \"authenticated\"\nissuers = [\"{name}\"]\n",
            server.url()
        )
    });
    let directory = Directory::with(&format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[upstreams.api]\nurl = \
         \"{}\"\n{}",
        api.url(),
        issuers.concat()
    ));
    let gate = directory.serve(&["run"]);
    for path in ["/one", "/other", "/one"] {
        let request = Request::new("GET", path).header("Cookie", cookie());
        assert_eq!(request.response(gate.address).status, 200, "{path}");
    }
    for server in [one, other] {
        let is_exchange = |arrived: &Arrived| arrived.head.line().contains("/api/auth/token?");
        assert!(server.arrived().iter().any(is_exchange));
    }
    gate.stop();
}

#[test]
fn doctor_tests_introspection() {
    for (server, code, expected) in [
        (
            Server::Normal,
            0,
            "reports an unknown token as not active; a revocation takes effect within 10s\n",
        ),
        (
            Server::Unauthorized,
            1,
            "fix: compare `client_id` and the client secret",
        ),
        (
            Server::BadRequest,
            1,
            "fix: register the client with `client_secret_basic`",
        ),
        (
            Server::OtherApplication,
            1,
            "the body is not a JSON object with `active`\n",
        ),
    ] {
        let upstream = server.start();
        let ended = introspection(&upstream).call(&["doctor"]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{expected}: {ended:?}");
    }
    let server = Server::Normal.start();
    let directory = introspection(&server);
    for (token, code, expected) in [
        (
            ACCESS_TOKEN.to_owned(),
            0,
            "ok    token: accepted: issuer `app`, subject `bob`\n",
        ),
        (
            ACCESS_TOKEN.replace("bob", "eve"),
            1,
            "FAIL  token: rejected by issuer `app` (token_inactive)\n",
        ),
    ] {
        let ended = directory.call(&["doctor", "--token", &token]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{expected}: {ended:?}");
    }
}
