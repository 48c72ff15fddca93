//! Token issuer with a JWKS endpoint.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::wire::Wire;
use super::{Latch, NOW};

/// Shared secret, for tests that do not depend on the algorithm.
pub(crate) const SECRET: &str = "a secret of the tests, 32 bytes at least";

/// Signs tokens with a shared secret, and publishes keys.
pub(crate) struct Issuer {
    address: SocketAddr,
    endpoint: Arc<JwksEndpoint>,
}

struct JwksEndpoint {
    response: Mutex<JwksResponse>,
    fetches: Mutex<Vec<String>>,
}

/// Response to a fetch of the key set.
#[derive(Clone)]
pub(crate) enum JwksResponse {
    /// Key set with these keys.
    Keys(Vec<Key>),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// End of the connection without a response.
    Closed,
    /// Another response, once the latch is open.
    Delayed(Latch, Box<Self>),
}

/// Key pair or shared secret.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    algorithm: Algorithm,
    signer: EncodingKey,
}

fn pem(name: &str) -> Vec<u8> {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");
    std::fs::read(format!("{keys}/{name}.private.pem")).unwrap()
}

impl Key {
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self {
            kid: None,
            algorithm: Algorithm::HS256,
            signer: EncodingKey::from_secret(secret),
        }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self::ed25519_of("ed25519", kid)
    }

    /// Loads an Ed25519 key of the fixtures.
    pub(crate) fn ed25519_of(file: &str, kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::EdDSA,
            signer: EncodingKey::from_ed_pem(&pem(file)).unwrap(),
        }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::ES256,
            signer: EncodingKey::from_ec_pem(&pem("p256")).unwrap(),
        }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::RS256,
            signer: EncodingKey::from_rsa_pem(&pem("rsa")).unwrap(),
        }
    }

    /// The same key for another algorithm.
    pub(crate) fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    pub(crate) fn without_kid(self) -> Self {
        Self { kid: None, ..self }
    }

    pub(crate) fn public_jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.signer, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        if let Some(kid) = &self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm, "typ": "JWT" });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any header and payload.
    pub(crate) fn sign_text(&self, header: &str, payload: &str) -> String {
        let (header, payload) = (
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
        );
        let input = format!("{header}.{payload}");
        let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &self.signer, self.algorithm);
        format!("{input}.{}", signature.unwrap())
    }
}

/// Claims of a token that is valid for an hour from [`NOW`].
pub(crate) fn claims(subject: &str) -> Value {
    json!({ "sub": subject, "iat": NOW - 60, "exp": NOW + 3600 })
}

impl Issuer {
    pub(crate) fn start() -> Self {
        Self::publishing(JwksResponse::Closed)
    }

    /// Starts an issuer with this response to key fetches.
    pub(crate) fn publishing(response: JwksResponse) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            endpoint: Arc::new(JwksEndpoint {
                response: Mutex::new(response),
                fetches: Mutex::default(),
            }),
        };
        let endpoint = Arc::clone(&issuer.endpoint);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let endpoint = Arc::clone(&endpoint);
                thread::spawn(move || endpoint.serve(Wire::tcp(stream)));
            }
        });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Changes the response to key fetches.
    pub(crate) fn publish(&self, response: JwksResponse) {
        *self.endpoint.response.lock().unwrap() = response;
    }

    /// Number of key fetches.
    pub(crate) fn fetches(&self) -> usize {
        self.endpoint.fetches.lock().unwrap().len()
    }

    /// Targets of the key fetches.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.endpoint.fetches.lock().unwrap().clone()
    }

    /// Signs a token of this subject with the shared secret.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.sign(&claims(subject))
    }

    /// Signs any claims with the shared secret.
    #[expect(clippy::unused_self, reason = "reads as issuer.sign(claims)")]
    pub(crate) fn sign(&self, claims: &Value) -> String {
        Key::secret(SECRET.as_bytes()).sign(claims)
    }
}

impl JwksEndpoint {
    fn serve(&self, mut wire: Wire) {
        let Ok(Some(head)) = wire.read_head() else {
            return;
        };
        let response = self.response.lock().unwrap().clone();
        let target = head.line().split(' ').nth(1).unwrap().to_owned();
        self.fetches.lock().unwrap().push(target);
        let _gone = wire.write(&response.bytes());
    }
}

impl JwksResponse {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Keys(keys) => {
                let keys: Vec<_> = keys.iter().map(Key::public_jwk).collect();
                json_response("200 OK", &json!({ "keys": keys }).to_string())
            }
            Self::Raw(bytes) => bytes.clone(),
            Self::Closed => Vec::new(),
            Self::Delayed(latch, response) => {
                latch.wait();
                response.bytes()
            }
        }
    }

    /// Response with a JSON body.
    pub(crate) fn with_status(status: &str, body: &str) -> Self {
        Self::Raw(json_response(status, body))
    }
}

fn json_response(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
