//! Tokens: header and claims are read as JSON defines them, and only with a valid signature.

use std::collections::BTreeSet;

use http::{HeaderValue, Request};
use serde_json::Value;

use claimgate::gate::cache::TokenCache;
use claimgate::gate::permit::Caller;

use super::policy::{LEEWAY, NOW, decide, sign};

/// Splits the input at the first line feed into header and claims, signs them, and judges a request with that token. An
/// input without a line feed is the token itself, which no fuzzer can sign.
pub fn check(data: &[u8]) {
    let parts = data
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|at| data.split_at(at));
    let signed = parts.map(|(header, claims)| (header, &claims[1..]));
    let token = match signed {
        Some((header, claims)) => sign(header, claims).into_bytes(),
        None => data.to_vec(),
    };
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", &token[..]].concat()) else {
        return;
    };
    let request = Request::get("/me/x")
        .header("host", "gate.test")
        .header("authorization", value);
    let head = request.body(()).expect("a valid request").into_parts().0;
    let mut cache = TokenCache::default();
    let Ok(permit) = decide(&head, &mut cache) else {
        return;
    };
    let (header, claims) = signed.expect("accepted without a signature of the issuer");
    let Caller::Known(caller) = permit.caller() else {
        panic!("the route requires a token");
    };
    check_header(&object(header));
    let claims = object(claims);
    let subject = claims.get("sub").or_else(|| claims.get("user_id"));
    assert_eq!(
        subject.and_then(Value::as_str),
        Some(caller.subject.as_str())
    );
    assert!(!caller.subject.as_str().is_empty());
    // RFC 7519 section 4.1.4: a time is a number of seconds.
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().expect(name));
    #[expect(
        clippy::cast_precision_loss,
        reason = "times of this century are exact"
    )]
    let (now, leeway) = (NOW as f64, LEEWAY as f64);
    assert!(number("exp").expect("exp") + leeway > now, "expired");
    assert!(
        number("nbf").is_none_or(|from| from <= now + leeway),
        "not yet valid"
    );
    assert!(
        number("iat").is_none_or(|from| from <= now + leeway),
        "issued in the future"
    );
    assert!(
        decide(&head, &mut cache).is_ok(),
        "a cached token has another outcome"
    );
}

fn check_header(header: &serde_json::Map<String, Value>) {
    assert_eq!(header.get("alg").and_then(Value::as_str), Some("HS256"));
    for name in ["crit", "b64", "zip"] {
        // RFC 7515 section 4.1.11: an extension that is not understood makes the token invalid.
        assert!(!header.contains_key(name), "accepted with {name}");
    }
    let media_type = header.get("typ").map(|value| value.as_str().expect("typ"));
    assert!(
        media_type.is_none_or(|value| value.eq_ignore_ascii_case("JWT")
            || value.eq_ignore_ascii_case("application/jwt"))
    );
}

/// Parses a JSON object with a second parser, which must find no duplicate name in it.
fn object(json: &[u8]) -> serde_json::Map<String, Value> {
    let text =
        std::str::from_utf8(json).expect("accepted as JSON, but not UTF-8 (RFC 8259 section 8.1)");
    let Value::Object(map) = serde_json::from_str(text).expect("accepted, but not JSON") else {
        panic!("accepted, but not an object: {text:?}");
    };
    let names: Names = serde_json::from_str(text).expect("an object");
    assert_eq!(names.0.len(), map.len(), "duplicate names: {text:?}");
    assert_eq!(names.0.iter().collect::<BTreeSet<_>>().len(), map.len());
    map
}

/// Member names of a JSON object, as often as they occur.
struct Names(Vec<String>);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Names;
            fn expecting(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                text.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = map.next_key()? {
                    names.push(name);
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
                Ok(Names(names))
            }
        }
        source.deserialize_map(Visitor)
    }
}
