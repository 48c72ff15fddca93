//! Policy and tokens that the targets share.

use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;

use claimgate::app::App;
use claimgate::clock::UnixTime;
use claimgate::config::ConfigDocument;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::permit::Permit;
use claimgate::gate::stop::Stop;
use claimgate::proxy::headers::Peer;
use claimgate::proxy::shared::Policy;

/// Time of every decision.
pub(crate) const NOW: i64 = 1_800_000_000;

/// Leeway of the configuration, in seconds.
pub(crate) const LEEWAY: i64 = 30;

const SECRET: &str = "a secret of the fuzz targets, 32 bytes at least";

/// One route of each kind of access, and literals that compete with parameters for the same paths.
const CONFIGURATION: &str = r#"
[listen]
address = "127.0.0.1:0"
max_header_bytes = "32KiB"

[identity]
headers = { "X-User-Email" = "email", "Subject_Name" = "subject" }

[upstreams.tasks]
url = "http://127.0.0.1:1"

[issuers.test]
keys = { secret_env = "FUZZ_SECRET" }
leeway = "30s"

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }

[[routes]]
path = "/v1/{name}"
access = "public"

[[routes]]
path = "/v1/tasks:purge"
access = "authenticated"

[[routes]]
path = "/v1/%C3%B6rtlich"
access = "authenticated"

[[routes]]
path = "/me/{*rest}"
access = "authenticated"

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

pub(crate) static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let mut document = ConfigDocument::parse(Path::new("fuzz.toml"), CONFIGURATION)
        .unwrap_or_else(|problems| panic!("{problems}"));
    document.set_variable("FUZZ_SECRET", SECRET);
    App::compile(document)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .policy
});

pub(crate) fn peer() -> Peer {
    Peer::at(Some([192, 0, 2, 7].into()))
}

/// Judges a head as it arrived.
pub(crate) fn decide(head: &Parts, cache: &mut TokenCache) -> Result<Permit, Stop> {
    let inbound = POLICY.headers.inbound(&peer(), head.clone());
    POLICY.gate.decide(&inbound, UnixTime(NOW), cache)
}

/// Signs any header and payload with the secret of the issuer (HS256, RFC 7518 section 3.2).
pub(crate) fn sign(header: &[u8], payload: &[u8]) -> String {
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, input.as_bytes()));
    format!("{input}.{signature}")
}

/// Token of a subject that is valid at [`NOW`].
pub(crate) fn token_of(subject: &str) -> String {
    let claims = serde_json::json!({"sub": subject, "email": "one@mail.test", "exp": NOW + 600});
    sign(
        br#"{"alg":"HS256","typ":"JWT"}"#,
        claims.to_string().as_bytes(),
    )
}
