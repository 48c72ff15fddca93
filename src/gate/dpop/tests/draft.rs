//! Proofs that are not signed yet, and the requests they are for.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::inbound::Scheme;

use super::super::*;

/// Request, and the key that its token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) url: Url,
    pub(super) token: String,
    pub(super) thumbprint: String,
    pub(super) now: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl Request {
    pub(super) fn context<'a>(&'a self, method: &'a Method) -> ProofContext<'a> {
        ProofContext {
            method,
            url: ExternalUrl {
                scheme: if self.url.scheme == "https" {
                    Scheme::Https
                } else {
                    Scheme::Http
                },
                authority: &self.url.authority,
                path: &self.url.path,
            },
            token: &self.token,
            thumbprint: &self.thumbprint,
            now: UnixTime(self.now),
        }
    }

    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        policy: &ProofPolicy,
    ) -> Result<VerifiedProof, ProofFault> {
        let method = self.method.parse().unwrap();
        verify(headers, &self.context(&method), policy)
    }
}

/// Way to sign.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signing {
    Es256(&'static str),
    /// ECDSA in the encoding of TLS.
    Es256Asn1(&'static str),
    EdDsa(&'static str),
    Rs256(&'static str),
    Ps256(&'static str),
    /// HMAC with a public key as the secret.
    Hs256(&'static str),
    None,
}

/// A proof before its signature: a valid one, until it is edited.
pub(super) struct Draft {
    pub(super) header: Value,
    pub(super) claims: Value,
    /// Replaces the JSON text of the header.
    pub(super) header_text: Option<Vec<u8>>,
    /// Replaces the JSON text of the claims.
    pub(super) claims_text: Option<Vec<u8>>,
    pub(super) signing: Signing,
    /// Values of `DPoP`, from the signed proof.
    pub(super) send: fn(String) -> Vec<Vec<u8>>,
    pub(super) request: Request,
    pub(super) policy: ProofPolicy,
}

impl Default for Draft {
    fn default() -> Self {
        let mut draft = Self {
            header: json!({ "typ": "dpop+jwt" }),
            claims: json!({
                "htm": "GET",
                "htu": "https://api.example/api/alice/tasks",
                "iat": 1_800_000_000,
                "jti": "proof-1",
            }),
            header_text: None,
            claims_text: None,
            signing: Signing::None,
            send: |proof| vec![proof.into_bytes()],
            request: Request {
                method: "GET".to_owned(),
                url: Url {
                    scheme: "https".to_owned(),
                    authority: "api.example".to_owned(),
                    path: "/api/alice/tasks".to_owned(),
                },
                token: String::new(),
                thumbprint: String::new(),
                now: 1_800_000_000,
            },
            policy: ProofPolicy::default(),
        };
        draft.set_token("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2ln");
        draft.use_key("p256");
        draft
    }
}

impl Draft {
    /// Signs with this key, and binds the token to it.
    pub(super) fn use_key(&mut self, name: &'static str) {
        let (alg, signing) = match name {
            "p256" | "p256-stranger" => ("ES256", Signing::Es256(name)),
            "rsa" => ("RS256", Signing::Rs256(name)),
            _ => ("EdDSA", Signing::EdDsa(name)),
        };
        self.header["alg"] = json!(alg);
        self.signing = signing;
        self.set_jwk(jwk(name));
    }

    /// Puts this key into the proof, and binds the token to it.
    pub(super) fn set_jwk(&mut self, jwk: Value) {
        self.request.thumbprint = thumbprint(&jwk);
        self.header["jwk"] = jwk;
    }

    /// Sends this token, with a proof for it.
    pub(super) fn set_token(&mut self, token: &str) {
        token.clone_into(&mut self.request.token);
        self.claims["ath"] = json!(hash(token));
    }

    /// Removes a member of the header.
    pub(super) fn drop_header(&mut self, name: &str) {
        self.header.as_object_mut().unwrap().remove(name).unwrap();
    }

    pub(super) fn drop_claim(&mut self, name: &str) {
        self.claims.as_object_mut().unwrap().remove(name).unwrap();
    }

    pub(super) fn drop_key_member(&mut self, name: &str) {
        let jwk = self.header["jwk"].as_object_mut().unwrap();
        jwk.remove(name).unwrap();
    }

    /// Adds JSON text to the end of the header, such as a second member of the same name.
    pub(super) fn append_to_header(&mut self, members: &str) {
        self.header_text = Some(appended(&self.header, members));
    }

    pub(super) fn append_to_claims(&mut self, members: &str) {
        self.claims_text = Some(appended(&self.claims, members));
    }

    /// Signs the proof. Returns the headers of the request.
    pub(super) fn sign(&self) -> HeaderMap {
        let text = |text: &Option<Vec<u8>>, json: &Value| {
            let text = text.clone();
            URL_SAFE_NO_PAD.encode(text.unwrap_or_else(|| json.to_string().into_bytes()))
        };
        let header = text(&self.header_text, &self.header);
        let claims = text(&self.claims_text, &self.claims);
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.signing.sign(signed.as_bytes()));
        let mut headers = HeaderMap::new();
        for value in (self.send)(format!("{signed}.{signature}")) {
            headers.append(DPOP, value.try_into().unwrap());
        }
        headers
    }

    pub(super) fn verify(&self) -> Result<VerifiedProof, ProofFault> {
        self.request.verify(&self.sign(), &self.policy)
    }
}

fn appended(object: &Value, members: &str) -> Vec<u8> {
    let text = object.to_string();
    format!("{},{members}}}", text.strip_suffix('}').unwrap()).into_bytes()
}

impl Signing {
    fn sign(self, input: &[u8]) -> Vec<u8> {
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm, name| {
            let key = EcdsaKeyPair::from_pkcs8(algorithm, &private(name)).unwrap();
            key.sign(&SystemRandom::new(), input)
                .unwrap()
                .as_ref()
                .to_vec()
        };
        let rsa = |encoding: &'static dyn RsaEncoding, name| {
            let key = RsaKeyPair::from_pkcs8(&private(name)).unwrap();
            let mut signature = vec![0; key.public_modulus_len()];
            let random = SystemRandom::new();
            key.sign(encoding, &random, input, &mut signature).unwrap();
            signature
        };
        match self {
            Self::Es256(name) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, name),
            Self::Es256Asn1(name) => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, name),
            Self::EdDsa(name) => ed25519(name).sign(input).as_ref().to_vec(),
            Self::Rs256(name) => rsa(&RSA_PKCS1_SHA256, name),
            Self::Ps256(name) => rsa(&RSA_PSS_SHA256, name),
            Self::Hs256(name) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &public(name));
                hmac::sign(&key, input).as_ref().to_vec()
            }
            Self::None => Vec::new(),
        }
    }
}

/// PKCS #8 of a test key.
fn private(name: &str) -> Vec<u8> {
    let pem = match name {
        "p256" => include_str!("../../../../tests/fixtures/keys/p256.private.pem"),
        "p256-stranger" => {
            include_str!("../../../../tests/fixtures/keys/p256-stranger.private.pem")
        }
        "ed25519" => include_str!("../../../../tests/fixtures/keys/ed25519.private.pem"),
        "rsa" => include_str!("../../../../tests/fixtures/keys/rsa.private.pem"),
        _ => panic!("{name}"),
    };
    pem::parse(pem).unwrap().into_contents()
}

fn ed25519(name: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private(name)).unwrap()
}

/// Point or bytes of a public key.
fn public(name: &str) -> Vec<u8> {
    match name {
        "ed25519" => ed25519(name).public_key().as_ref().to_vec(),
        _ => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private(name));
            key.unwrap().public_key().as_ref().to_vec()
        }
    }
}

/// JSON Web Key of a test key.
pub(super) fn jwk(name: &str) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match name {
        "ed25519" => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&public(name)) }),
        "rsa" => {
            let key = RsaKeyPair::from_pkcs8(&private(name)).unwrap();
            let public = key.public_key();
            let (modulus, exponent) = (public.modulus(), public.exponent());
            json!({
                "kty": "RSA",
                "n": encode(modulus.big_endian_without_leading_zero()),
                "e": encode(exponent.big_endian_without_leading_zero()),
            })
        }
        _ => {
            let point = public(name);
            json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
        }
    }
}

/// Thumbprint of a key, with the members that a developer may have put into it.
pub(super) fn thumbprint(jwk: &Value) -> String {
    let member = |name: &str| jwk[name].as_str().unwrap_or_default();
    let names: &[&str] = match member("kty") {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => &["k", "kty"],
    };
    let mut members = serde_json::Map::new();
    for name in names {
        members.insert((*name).to_owned(), member(name).into());
    }
    hash(&Value::Object(members).to_string())
}

pub(super) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&SHA256, text.as_bytes()))
}
