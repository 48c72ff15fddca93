//! Invalid proofs: each is the valid one with one mutation, signed after it where the mutation is in a signed part.

use crate::gate::proof_fault::UrlFault;
use std::collections::BTreeSet;

use serde_json::json;

use crate::gate::token_fault::Part::{Claims, Header, Signature};
use crate::gate::token_fault::{PartFault, TimeFault};

use super::super::*;
use super::draft::{Draft, Signing, hash, jwk, thumbprint};
use super::outcome;

use ProofFault as Fault;

/// Fault, mutation in words, mutation.
type Rejection = (Fault, &'static str, fn(&mut Draft));

/// Reason of the loader of key sets, mutation in words, mutation.
type UnusableKey = (&'static str, &'static str, fn(&mut Draft));

/// Header and its values.
const HEADER_FIELD: &[Rejection] = &[
    (Fault::Missing, "there is no `DPoP` header", |it| {
        it.send = |_| Vec::new();
    }),
    (Fault::Repeated, "there is a second proof", |it| {
        it.send = |proof| vec![proof.into_bytes(), b"a.b.c".to_vec()];
    }),
    (Fault::Repeated, "the proof is there twice", |it| {
        it.send = |proof| vec![proof.clone().into_bytes(), proof.into_bytes()];
    }),
    (Fault::Repeated, "a second header is empty", |it| {
        it.send = |proof| vec![proof.into_bytes(), Vec::new()];
    }),
    (Fault::Repeated, "a proxy joined two headers", |it| {
        it.send = |proof| vec![format!("{proof}, {proof}").into_bytes()];
    }),
    (Fault::TooLong, "the proof is longer than 8 KiB", |it| {
        it.claims["padding"] = json!("a".repeat(MAX_PROOF_BYTES));
    }),
    (Fault::NotAscii, "a byte is not ASCII", |it| {
        it.send = |proof| vec![[proof.as_bytes(), b"\xe9"].concat()];
    }),
    (Fault::Parts(1), "the header is empty", |it| {
        it.send = |_| vec![Vec::new()];
    }),
    (Fault::Parts(2), "the signature is missing", |it| {
        it.send = |proof| vec![proof.rsplit_once('.').unwrap().0.into()];
    }),
    (Fault::Parts(4), "there is a fourth part", |it| {
        it.send = |proof| vec![format!("{proof}.a").into_bytes()];
    }),
    (Fault::Parts(5), "the proof is encrypted", |it| {
        it.send = |proof| vec![format!("{proof}.a.b").into_bytes()];
    }),
    (
        Fault::Part(Header, PartFault::Encoding),
        "the proof has a scheme",
        |it| {
            it.send = |proof| vec![format!("DPoP {proof}").into_bytes()];
        },
    ),
    (
        Fault::Part(Header, PartFault::Encoding),
        "the proof is in quotes",
        |it| {
            it.send = |proof| vec![format!("\"{proof}\"").into_bytes()];
        },
    ),
    (
        Fault::Part(Header, PartFault::Encoding),
        "a tab is before the proof",
        |it| {
            it.send = |proof| vec![format!("\t{proof}").into_bytes()];
        },
    ),
    (
        Fault::Part(Header, PartFault::Encoding),
        "the header has base64 padding",
        |it| {
            it.send = |proof| vec![proof.replacen('.', "=.", 1).into_bytes()];
        },
    ),
    (
        Fault::Part(Claims, PartFault::Encoding),
        "the claims have base64 padding",
        |it| {
            it.send = |proof| vec![proof.replace('.', "=.").replacen("=.", ".", 1).into_bytes()];
        },
    ),
    (
        Fault::Part(Signature, PartFault::Encoding),
        "the signature has base64 padding",
        |it| {
            it.send = |proof| vec![format!("{proof}==").into_bytes()];
        },
    ),
    (
        Fault::Part(Signature, PartFault::Encoding),
        "the signature has the alphabet of base64",
        |it| {
            it.send = |proof| vec![format!("{}+/", &proof[..proof.len() - 2]).into_bytes()];
        },
    ),
    (
        Fault::Part(Signature, PartFault::Encoding),
        "the last character has unused bits",
        |it| {
            // 64 bytes leave four bits unused, so the last character is one of `A`, `Q`, `g` and `w`.
            it.send = |proof| {
                let mut proof = proof.into_bytes();
                *proof.last_mut().unwrap() += 1;
                vec![proof]
            };
        },
    ),
];

/// JSON of header and claims.
const JSON: &[Rejection] = &[
    (
        Fault::Part(Header, PartFault::NotJson),
        "the header is not JSON",
        |it| {
            it.header_text = Some(b"{\"typ\":".to_vec());
        },
    ),
    (
        Fault::Part(Header, PartFault::NotJson),
        "text follows the header",
        |it| {
            it.header_text = Some(format!("{}{{}}", it.header).into_bytes());
        },
    ),
    (
        Fault::Part(Header, PartFault::NotObject),
        "the header is a list",
        |it| {
            it.header = json!([it.header]);
        },
    ),
    (
        Fault::Part(Header, PartFault::NotUtf8),
        "the header is not UTF-8",
        |it| {
            it.header_text = Some(b"{\"a\":\"\xff\"}".to_vec());
        },
    ),
    (
        Fault::Part(Claims, PartFault::NotJson),
        "the claims are empty",
        |it| {
            it.claims_text = Some(Vec::new());
        },
    ),
    (
        Fault::Part(Claims, PartFault::NotObject),
        "the claims are text",
        |it| {
            it.claims = json!(it.claims.to_string());
        },
    ),
    (
        Fault::Part(Claims, PartFault::NotUtf8),
        "the claims are not UTF-8",
        |it| {
            it.claims_text = Some(b"{\"a\":\"\xff\"}".to_vec());
        },
    ),
    (
        Fault::Part(Claims, PartFault::NumberTooLarge),
        "a number is too large",
        |it| {
            it.append_to_claims("\"a\":1e999");
        },
    ),
    (
        Fault::Part(Header, PartFault::DuplicateName),
        "the header has two `alg`",
        |it| {
            it.append_to_header("\"alg\":\"ES256\"");
        },
    ),
    (
        Fault::Part(Header, PartFault::DuplicateName),
        "the header has two `jwk`",
        |it| {
            it.append_to_header(&format!("\"jwk\":{}", jwk("p256-stranger")));
        },
    ),
    (
        Fault::Part(Header, PartFault::DuplicateName),
        "the key has two `x`",
        |it| {
            let text = it
                .header
                .to_string()
                .replace("\"x\":", "\"x\":\"AA\",\"x\":");
            it.header_text = Some(text.into_bytes());
        },
    ),
    (
        Fault::Part(Claims, PartFault::DuplicateName),
        "the claims have two `htu`",
        |it| {
            it.append_to_claims("\"htu\":\"https://api.example/api/alice/tasks\"");
        },
    ),
    (
        Fault::Part(Claims, PartFault::DuplicateName),
        "an escape hides a second `jti`",
        |it| {
            it.append_to_claims("\"\\u006ati\":\"proof-2\"");
        },
    ),
];

/// JOSE header.
const JOSE: &[Rejection] = &[
    (
        Fault::Extension("crit"),
        "`crit` names an extension",
        |it| {
            it.header["crit"] = json!(["exp"]);
        },
    ),
    (Fault::Extension("crit"), "`crit` is empty", |it| {
        it.header["crit"] = json!([]);
    }),
    (Fault::Extension("b64"), "the payload is unencoded", |it| {
        it.header["b64"] = json!(false);
    }),
    (Fault::Extension("zip"), "the payload is compressed", |it| {
        it.header["zip"] = json!("DEF");
    }),
    (Fault::Type, "`typ` is missing", |it| {
        it.drop_header("typ");
    }),
    (Fault::Type, "`typ` is `JWT`", |it| {
        it.header["typ"] = json!("JWT");
    }),
    (Fault::Type, "`typ` is that of an access token", |it| {
        it.header["typ"] = json!("at+jwt");
    }),
    (Fault::Type, "`typ` has a parameter", |it| {
        it.header["typ"] = json!("dpop+jwt;v=1");
    }),
    (Fault::Type, "`typ` has a space", |it| {
        it.header["typ"] = json!("dpop+jwt ");
    }),
    (Fault::Type, "`typ` is of another tree", |it| {
        it.header["typ"] = json!("text/dpop+jwt");
    }),
    (Fault::Type, "`typ` is a list", |it| {
        it.header["typ"] = json!(["dpop+jwt"]);
    }),
    (Fault::Algorithm, "`alg` is missing", |it| {
        it.drop_header("alg");
    }),
    (Fault::Algorithm, "`alg` is a number", |it| {
        it.header["alg"] = json!(256);
    }),
    (
        Fault::Algorithm,
        "`alg` is `none`, without a signature",
        |it| {
            it.header["alg"] = json!("none");
            it.signing = Signing::None;
        },
    ),
    (Fault::Algorithm, "`alg` is `none` in another case", |it| {
        it.header["alg"] = json!("nOnE");
        it.signing = Signing::None;
    }),
    (Fault::Algorithm, "`alg` is in another case", |it| {
        it.header["alg"] = json!("es256");
    }),
    (Fault::Algorithm, "`alg` is of another curve", |it| {
        it.header["alg"] = json!("ES256K");
    }),
    (
        Fault::Algorithm,
        "the public key is the secret of an HMAC",
        |it| {
            it.header["alg"] = json!("HS256");
            it.signing = Signing::Hs256("p256");
        },
    ),
    (
        Fault::Algorithm,
        "the policy lists an HMAC, and the key is a secret",
        |it| {
            it.policy.algorithms = vec![Algorithm::HS256];
            it.header["alg"] = json!("HS256");
            it.set_jwk(json!({ "kty": "oct" }));
        },
    ),
    (Fault::Algorithm, "`alg` is not in the list", |it| {
        it.policy.algorithms = vec![Algorithm::EdDSA, Algorithm::ES384];
    }),
];

/// Public key.
const KEY: &[Rejection] = &[
    (Fault::NoKey, "`jwk` is missing", |it| {
        it.drop_header("jwk");
    }),
    (Fault::NoKey, "`jwk` is null", |it| {
        it.header["jwk"] = json!(null);
    }),
    (Fault::NoKey, "`jwk` is text", |it| {
        it.header["jwk"] = json!(jwk("p256").to_string());
    }),
    (Fault::NoKey, "`jwk` is a list", |it| {
        it.header["jwk"] = json!([jwk("p256")]);
    }),
    (Fault::NoKey, "the key is in `jku` and `kid` alone", |it| {
        it.drop_header("jwk");
        it.header["jku"] = json!("https://api.example/jwks");
        it.header["kid"] = json!("1");
    }),
    (Fault::PrivateKey, "the key has `d`", |it| {
        it.header["jwk"]["d"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `p`", |it| {
        it.header["jwk"]["p"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `q`", |it| {
        it.header["jwk"]["q"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `dp`", |it| {
        it.header["jwk"]["dp"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `dq`", |it| {
        it.header["jwk"]["dq"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `qi`", |it| {
        it.header["jwk"]["qi"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has `oth`", |it| {
        it.header["jwk"]["oth"] = json!([]);
    }),
    (Fault::PrivateKey, "the key has `k`", |it| {
        it.header["jwk"]["k"] = json!("AA");
    }),
    (Fault::PrivateKey, "the key has a `d` that is null", |it| {
        it.header["jwk"]["d"] = json!(null);
    }),
    (Fault::KeyKind, "`kty` is missing", |it| {
        it.drop_key_member("kty");
    }),
    (Fault::KeyKind, "`kty` is in another case", |it| {
        it.header["jwk"]["kty"] = json!("ec");
    }),
    (Fault::KeyKind, "`kty` is a secret", |it| {
        it.header["jwk"]["kty"] = json!("oct");
    }),
    (Fault::KeyKind, "`crv` is missing", |it| {
        it.drop_key_member("crv");
    }),
    (Fault::KeyKind, "`crv` is another curve", |it| {
        it.header["jwk"]["crv"] = json!("P-384");
    }),
    (Fault::KeyKind, "`crv` is not supported", |it| {
        it.header["jwk"]["crv"] = json!("secp256k1");
    }),
    (Fault::KeyKind, "an EC algorithm has an Ed25519 key", |it| {
        it.set_jwk(jwk("ed25519"));
    }),
    (Fault::KeyKind, "an EC algorithm has an RSA key", |it| {
        it.set_jwk(jwk("rsa"));
    }),
    (Fault::KeyKind, "an RSA algorithm has an EC key", |it| {
        it.header["alg"] = json!("RS256");
    }),
    (Fault::KeyKind, "the key is for key agreement", |it| {
        it.use_key("ed25519");
        it.header["jwk"]["crv"] = json!("X25519");
    }),
    (
        Fault::KeyAlgorithm,
        "the key is for an algorithm of another kind",
        |it| {
            it.header["jwk"]["alg"] = json!("RS256");
        },
    ),
    (
        Fault::KeyAlgorithm,
        "the key is for another algorithm of its kind",
        |it| {
            it.use_key("rsa");
            it.header["alg"] = json!("PS256");
            it.header["jwk"]["alg"] = json!("RS256");
            it.signing = Signing::Ps256("rsa");
        },
    ),
    (
        Fault::KeyAlgorithm,
        "the key is for an unknown algorithm",
        |it| {
            it.header["jwk"]["alg"] = json!("ECDH-ES");
        },
    ),
    (Fault::KeyId, "`kid` of the key is another", |it| {
        it.header["kid"] = json!("1");
        it.header["jwk"]["kid"] = json!("2");
    }),
    (Fault::KeyId, "`kid` of the header is a number", |it| {
        it.header["kid"] = json!(1);
        it.header["jwk"]["kid"] = json!("1");
    }),
    (
        Fault::Thumbprint,
        "the token is bound to another key",
        |it| {
            it.request.thumbprint = thumbprint(&jwk("p256-stranger"));
        },
    ),
    (
        Fault::Thumbprint,
        "the holder of a stolen token signs with a key of its own",
        |it| {
            it.header["jwk"] = jwk("p256-stranger");
            it.signing = Signing::Es256("p256-stranger");
        },
    ),
    (
        Fault::Thumbprint,
        "the thumbprint is in another case",
        |it| {
            it.request.thumbprint.make_ascii_uppercase();
        },
    ),
    (Fault::Thumbprint, "the thumbprint has padding", |it| {
        it.request.thumbprint.push('=');
    }),
    (Fault::Thumbprint, "the thumbprint is empty", |it| {
        it.request.thumbprint.clear();
    }),
    (
        Fault::Thumbprint,
        "the thumbprint is only the start of one",
        |it| {
            it.request.thumbprint.truncate(20);
        },
    ),
    (
        Fault::Thumbprint,
        "the thumbprint is of all members of the key",
        |it| {
            it.header["jwk"]["kid"] = json!("1");
            it.request.thumbprint = hash(&it.header["jwk"].to_string());
        },
    ),
];

/// Signature.
const SIGNATURE: &[Rejection] = &[
    (Fault::Signature, "another key signs", |it| {
        it.signing = Signing::Es256("p256-stranger");
    }),
    (Fault::Signature, "the signature is empty", |it| {
        it.signing = Signing::None;
    }),
    (
        Fault::Signature,
        "the signature is in the encoding of TLS",
        |it| {
            it.signing = Signing::Es256Asn1("p256");
        },
    ),
    (
        Fault::Signature,
        "the public key is the secret of an HMAC, under the name of ECDSA",
        |it| {
            it.signing = Signing::Hs256("p256");
        },
    ),
    (
        Fault::Signature,
        "the signature is of another RSA scheme",
        |it| {
            it.use_key("rsa");
            it.signing = Signing::Ps256("rsa");
        },
    ),
    (
        Fault::Signature,
        "the signature is of the other RSA scheme",
        |it| {
            it.use_key("rsa");
            it.header["alg"] = json!("PS256");
        },
    ),
    (
        Fault::Signature,
        "the signature is of the scheme of another kind of key",
        |it| {
            it.use_key("ed25519");
            it.signing = Signing::Es256("p256");
        },
    ),
    (
        Fault::Signature,
        "a bit of the signature is another",
        |it| {
            it.send = |proof| {
                let (signed, signature) = proof.rsplit_once('.').unwrap();
                let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                signature[40] ^= 1;
                vec![format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()]
            };
        },
    ),
    (
        Fault::Signature,
        "the signature is all zeros (CVE-2022-21449)",
        |it| {
            it.send = |proof| {
                let (signed, _) = proof.rsplit_once('.').unwrap();
                vec![format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64])).into_bytes()]
            };
        },
    ),
    (
        Fault::Signature,
        "the claims are changed after the signature",
        |it| {
            it.send = |proof| {
                let mut parts = proof.split('.');
                let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
                let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
                let claims = String::from_utf8(claims)
                    .unwrap()
                    .replace("proof-1", "proof-2");
                let claims = URL_SAFE_NO_PAD.encode(claims);
                vec![format!("{header}.{claims}.{}", parts.next().unwrap()).into_bytes()]
            };
        },
    ),
    (
        Fault::Signature,
        "white space is added to the claims after the signature",
        |it| {
            it.send = |proof| {
                let mut parts = proof.split('.');
                let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
                let mut claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
                claims.push(b' ');
                let claims = URL_SAFE_NO_PAD.encode(claims);
                vec![format!("{header}.{claims}.{}", parts.next().unwrap()).into_bytes()]
            };
        },
    ),
];

/// `htm` and `htu`.
const REQUEST: &[Rejection] = &[
    (Fault::NoClaim("htm"), "`htm` is missing", |it| {
        it.drop_claim("htm");
    }),
    (Fault::NotText("htm"), "`htm` is null", |it| {
        it.claims["htm"] = json!(null);
    }),
    (
        Fault::NotText("htm"),
        "`htm` is a list with the method",
        |it| {
            it.claims["htm"] = json!(["GET"]);
        },
    ),
    (Fault::Method, "`htm` is another method", |it| {
        it.claims["htm"] = json!("POST");
    }),
    (Fault::Method, "the request has another method", |it| {
        it.request.method = "DELETE".to_owned();
    }),
    (Fault::Method, "`htm` is in another case", |it| {
        it.claims["htm"] = json!("get");
    }),
    (Fault::Method, "`htm` has a space", |it| {
        it.claims["htm"] = json!("GET ");
    }),
    (Fault::Method, "`htm` is empty", |it| {
        it.claims["htm"] = json!("");
    }),
    (Fault::NoClaim("htu"), "`htu` is missing", |it| {
        it.drop_claim("htu");
    }),
    (
        Fault::NotText("htu"),
        "`htu` is a list with the URL",
        |it| {
            it.claims["htu"] = json!(["https://api.example/api/alice/tasks"]);
        },
    ),
    (Fault::Url(UrlFault::NotAbsolute), "`htu` is a path", |it| {
        it.claims["htu"] = json!("/api/alice/tasks");
    }),
    (
        Fault::Url(UrlFault::Fragment),
        "`htu` has a fragment",
        |it| {
            it.claims["htu"] = json!("https://api.example/api/alice/tasks#a");
        },
    ),
    (
        Fault::Url(UrlFault::UserInfo),
        "`htu` has a user name",
        |it| {
            it.claims["htu"] = json!("https://alice@api.example/api/alice/tasks");
        },
    ),
    (
        Fault::Url(UrlFault::Scheme),
        "`htu` has another scheme",
        |it| {
            it.claims["htu"] = json!("http://api.example/api/alice/tasks");
        },
    ),
    (Fault::Url(UrlFault::Host), "`htu` has another host", |it| {
        it.claims["htu"] = json!("https://api.example.org/api/alice/tasks");
    }),
    (
        Fault::Url(UrlFault::Host),
        "the request has another port",
        |it| {
            it.request.url.authority = "api.example:8443".to_owned();
        },
    ),
    (Fault::Url(UrlFault::Path), "`htu` has another path", |it| {
        it.claims["htu"] = json!("https://api.example/api/bob/tasks");
    }),
    (
        Fault::Url(UrlFault::Path),
        "the request has another path",
        |it| {
            it.request.url.path = "/api/alice/tasks/1".to_owned();
        },
    ),
];

/// `iat`, `exp` and `nbf`.
const TIMES: &[Rejection] = &[
    (Fault::NoClaim("iat"), "`iat` is missing", |it| {
        it.drop_claim("iat");
    }),
    (
        Fault::Time("iat", TimeFault::NotNumber),
        "`iat` is null",
        |it| {
            it.claims["iat"] = json!(null);
        },
    ),
    (Fault::Time("iat", TimeFault::Text), "`iat` is text", |it| {
        it.claims["iat"] = json!("1800000000");
    }),
    (
        Fault::Time("iat", TimeFault::Milliseconds),
        "`iat` is in milliseconds",
        |it| {
            it.claims["iat"] = json!(1_800_000_000_000_i64);
        },
    ),
    (
        Fault::Time("iat", TimeFault::OutOfRange),
        "`iat` is negative",
        |it| {
            it.claims["iat"] = json!(-1);
        },
    ),
    (Fault::TooOld, "`iat` is a second too old", |it| {
        it.claims["iat"] = json!(1_799_999_699);
    }),
    (
        Fault::TooOld,
        "`iat` is a fraction of a second too old",
        |it| {
            it.claims["iat"] = json!(1_799_999_699.5);
        },
    ),
    (
        Fault::TooOld,
        "the policy accepts only younger proofs",
        |it| {
            it.policy.max_age = 9;
            it.request.now += 10;
        },
    ),
    (
        Fault::IssuedInFuture,
        "`iat` is a second too far in the future",
        |it| {
            it.claims["iat"] = json!(1_800_000_006);
        },
    ),
    (
        Fault::IssuedInFuture,
        "`iat` is a fraction of a second too far in the future",
        |it| {
            it.claims["iat"] = json!(1_800_000_005.5);
        },
    ),
    (
        Fault::IssuedInFuture,
        "the policy accepts no future",
        |it| {
            it.policy.max_future = 0;
            it.request.now -= 1;
        },
    ),
    (Fault::Expired, "`exp` is now", |it| {
        it.claims["exp"] = json!(1_800_000_000);
    }),
    (
        Fault::Expired,
        "`exp` is a fraction of a second ahead",
        |it| {
            it.claims["exp"] = json!(1_800_000_000.5);
        },
    ),
    (Fault::Time("exp", TimeFault::Text), "`exp` is text", |it| {
        it.claims["exp"] = json!("1900000000");
    }),
    (Fault::NotYetValid, "`nbf` is too far in the future", |it| {
        it.claims["nbf"] = json!(1_800_000_006);
    }),
    (
        Fault::NotYetValid,
        "`nbf` is a fraction of a second too far in the future",
        |it| {
            it.claims["nbf"] = json!(1_800_000_005.5);
        },
    ),
    (
        Fault::Time("nbf", TimeFault::NotNumber),
        "`nbf` is null",
        |it| {
            it.claims["nbf"] = json!(null);
        },
    ),
];

/// `jti`, `ath` and `nonce`.
const USE: &[Rejection] = &[
    (Fault::NoClaim("jti"), "`jti` is missing", |it| {
        it.drop_claim("jti");
    }),
    (Fault::NotText("jti"), "`jti` is a number", |it| {
        it.claims["jti"] = json!(1);
    }),
    (Fault::NotText("jti"), "`jti` is null", |it| {
        it.claims["jti"] = json!(null);
    }),
    (Fault::IdLength, "`jti` is empty", |it| {
        it.claims["jti"] = json!("");
    }),
    (Fault::IdLength, "`jti` has 513 characters", |it| {
        it.claims["jti"] = json!("1".repeat(513));
    }),
    (Fault::NoClaim("ath"), "`ath` is missing", |it| {
        it.drop_claim("ath");
    }),
    (Fault::NotText("ath"), "`ath` is null", |it| {
        it.claims["ath"] = json!(null);
    }),
    (Fault::TokenHash, "`ath` is empty", |it| {
        it.claims["ath"] = json!("");
    }),
    (Fault::TokenHash, "`ath` is of another token", |it| {
        it.claims["ath"] = json!(hash("other"));
    }),
    (Fault::TokenHash, "the request has another token", |it| {
        it.request.token.push('A');
    }),
    (
        Fault::TokenHash,
        "`ath` is of the token with its scheme",
        |it| {
            it.claims["ath"] = json!(hash(&format!("DPoP {}", it.request.token)));
        },
    ),
    (Fault::TokenHash, "`ath` is in hexadecimal", |it| {
        it.claims["ath"] = json!(hex::encode(sha256(&it.request.token)));
    }),
    (Fault::TokenHash, "`ath` has padding", |it| {
        it.claims["ath"] = json!(format!("{}=", hash(&it.request.token)));
    }),
    (
        Fault::TokenHash,
        "`ath` is only the start of the hash",
        |it| {
            // The `at_hash` of an ID token is half as long.
            it.claims["ath"] = json!(URL_SAFE_NO_PAD.encode(&sha256(&it.request.token)[..16]));
        },
    ),
    (Fault::NotText("nonce"), "`nonce` is a number", |it| {
        it.claims["nonce"] = json!(1);
    }),
    (Fault::NotText("nonce"), "`nonce` is null", |it| {
        it.claims["nonce"] = json!(null);
    }),
];

/// Faults of keys that the loader of key sets finds, in its words.
const UNUSABLE_KEYS: &[UnusableKey] = &[
    (
        "`use` or `key_ops` does not allow verifying signatures",
        "`use` is encryption",
        |it| {
            it.header["jwk"]["use"] = json!("enc");
        },
    ),
    (
        "`use` or `key_ops` does not allow verifying signatures",
        "`key_ops` is signing",
        |it| {
            it.header["jwk"]["key_ops"] = json!(["sign"]);
        },
    ),
    (
        "`use` or `key_ops` does not allow verifying signatures",
        "`key_ops` is empty",
        |it| {
            it.header["jwk"]["key_ops"] = json!([]);
        },
    ),
    ("not a JSON Web Key", "`use` is a list", |it| {
        it.header["jwk"]["use"] = json!(["sig"]);
    }),
    ("not a JSON Web Key", "`alg` of the key is a number", |it| {
        it.header["jwk"]["alg"] = json!(256);
    }),
    ("not a JSON Web Key", "`kid` of the key is a number", |it| {
        it.header["jwk"]["kid"] = json!(1);
    }),
    ("not a JSON Web Key", "`x` is a number", |it| {
        it.header["jwk"]["x"] = json!(1);
    }),
    ("`x` is missing", "`x` is missing", |it| {
        it.drop_key_member("x");
    }),
    ("`y` is missing", "`y` is missing", |it| {
        it.drop_key_member("y");
    }),
    ("`x` is not base64url", "`x` has padding", |it| {
        let x = it.header["jwk"]["x"].as_str().unwrap();
        it.header["jwk"]["x"] = json!(format!("{x}="));
    }),
    (
        "`x` is not base64url",
        "`x` ends its own JSON string",
        |it| {
            it.header["jwk"]["x"] = json!("A\",\"y\":\"A");
        },
    ),
    (
        "a coordinate has the wrong length for the curve",
        "`x` is short",
        |it| {
            it.header["jwk"]["x"] = json!("AA");
        },
    ),
    (
        "not a point on the curve",
        "`x` is of another point",
        |it| {
            it.header["jwk"]["x"] = jwk("p256-stranger")["x"].clone();
        },
    ),
    (
        "an Ed25519 key must have 32 bytes",
        "an Ed25519 key has 31 bytes",
        |it| {
            it.use_key("ed25519");
            it.header["jwk"]["x"] = json!(URL_SAFE_NO_PAD.encode([1; 31]));
        },
    ),
    (
        "the RSA key has fewer than 2048 bits",
        "an RSA key has 2047 bits",
        |it| {
            it.use_key("rsa");
            it.header["jwk"]["n"] = json!(URL_SAFE_NO_PAD.encode([0x7f; 256]));
        },
    ),
    (
        "the RSA exponent is less than 3",
        "an RSA exponent is 1",
        |it| {
            it.use_key("rsa");
            it.header["jwk"]["e"] = json!("AQ");
        },
    ),
];

#[test]
fn rejects_every_mutation_of_a_valid_proof() {
    let tables = [
        HEADER_FIELD,
        JSON,
        JOSE,
        KEY,
        SIGNATURE,
        REQUEST,
        TIMES,
        USE,
    ];
    let mut names = BTreeSet::new();
    for (fault, name, mutate) in tables.into_iter().flatten() {
        let mut draft = Draft::default();
        assert_eq!(outcome(&draft.verify()), "accepted");
        mutate(&mut draft);
        assert_eq!(draft.verify().as_ref(), Err(fault), "{name}");
        assert!(names.insert(name), "{name}");
    }
    assert!(names.len() >= 130, "{}", names.len());
}

#[test]
fn rejects_a_key_that_a_key_set_could_not_hold() {
    let mut names = BTreeSet::new();
    for (reason, name, mutate) in UNUSABLE_KEYS {
        let mut draft = Draft::default();
        mutate(&mut draft);
        // The token is bound to this key: nothing else is wrong with it.
        draft.request.thumbprint = thumbprint(&draft.header["jwk"]);
        assert_eq!(
            draft.verify(),
            Err(Fault::Key((*reason).to_owned())),
            "{name}"
        );
        assert!(names.insert(name), "{name}");
    }
    assert!(names.len() >= 16, "{}", names.len());
}

#[test]
fn a_fault_quotes_nothing_of_the_proof() {
    let mut draft = Draft::default();
    for (name, value) in [
        ("htm", "SECRET"),
        ("htu", "https://secret.example/"),
        ("ath", "SECRET"),
    ] {
        let before = draft.claims[name].clone();
        draft.claims[name] = json!(value);
        let text = draft.verify().unwrap_err().to_string();
        assert!(!text.to_ascii_lowercase().contains("secret"), "{text}");
        draft.claims[name] = before;
    }
    for (name, value) in [
        ("kty", "SECRET"),
        ("crv", "SECRET"),
        ("alg", "SECRET"),
        ("use", "SECRET"),
        ("x", "SECRET"),
    ] {
        let before = draft.header["jwk"].clone();
        draft.header["jwk"][name] = json!(value);
        let text = draft.verify().unwrap_err().to_string();
        assert!(!text.to_ascii_lowercase().contains("secret"), "{text}");
        draft.header["jwk"] = before;
    }
}
