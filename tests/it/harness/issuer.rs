//! An issuer that signs anything, and publishes its keys as it is told.

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

/// The secret that signs the tokens of tests that do not care what does.
pub(crate) const SECRET: &str = "a secret of the tests, 32 bytes at least";

/// Who signs tokens: with a shared secret, or with keys that it publishes.
pub(crate) struct Issuer {
    address: SocketAddr,
    shop: Arc<Shop>,
}

struct Shop {
    window: Mutex<Window>,
    fetches: Mutex<Vec<String>>,
}

/// What a fetch of the keys gets.
#[derive(Clone)]
pub(crate) enum Window {
    /// The public halves of these keys.
    Keys(Vec<Key>),
    /// These bytes, and then the end of the connection.
    Raw(Vec<u8>),
    /// The end of the connection at once.
    Closed,
    /// What the other gives, but not before the latch is open.
    Held(Latch, Box<Self>),
}

/// A key pair, or a secret.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    algorithm: Algorithm,
    signs: EncodingKey,
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
            signs: EncodingKey::from_secret(secret),
        }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self::ed25519_of("ed25519", kid)
    }

    /// One of the Ed25519 keys of the fixtures.
    pub(crate) fn ed25519_of(file: &str, kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::EdDSA,
            signs: EncodingKey::from_ed_pem(&pem(file)).unwrap(),
        }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::ES256,
            signs: EncodingKey::from_ec_pem(&pem("p256")).unwrap(),
        }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        Self {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::RS256,
            signs: EncodingKey::from_rsa_pem(&pem("rsa")).unwrap(),
        }
    }

    fn published(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.signs, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// Signs these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm, "typ": "JWT" });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any header over any payload.
    pub(crate) fn sign_text(&self, header: &str, payload: &str) -> String {
        let (header, payload) = (
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
        );
        let input = format!("{header}.{payload}");
        let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &self.signs, self.algorithm);
        format!("{input}.{}", signature.unwrap())
    }
}

/// What a token of this user says.
pub(crate) fn claims(subject: &str) -> Value {
    json!({ "sub": subject, "iat": NOW - 60, "exp": NOW + 3600 })
}

impl Issuer {
    pub(crate) fn start() -> Self {
        Self::publishing(Window::Closed)
    }

    /// One whose keys can be fetched, or not.
    pub(crate) fn publishing(window: Window) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            shop: Arc::new(Shop {
                window: Mutex::new(window),
                fetches: Mutex::default(),
            }),
        };
        let shop = Arc::clone(&issuer.shop);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shop = Arc::clone(&shop);
                thread::spawn(move || shop.serve(Wire::tcp(stream)));
            }
        });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Changes what a fetch gets.
    pub(crate) fn publish(&self, window: Window) {
        *self.shop.window.lock().unwrap() = window;
    }

    /// How often the keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.shop.fetches.lock().unwrap().len()
    }

    /// The targets that were asked for.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.shop.fetches.lock().unwrap().clone()
    }

    /// A token of this user, signed with the secret.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.sign(&claims(subject))
    }

    /// Any claims, signed with the secret.
    #[expect(clippy::unused_self, reason = "it is the issuer who signs")]
    pub(crate) fn sign(&self, claims: &Value) -> String {
        Key::secret(SECRET.as_bytes()).sign(claims)
    }
}

impl Shop {
    fn serve(&self, mut wire: Wire) {
        let Ok(Some(head)) = wire.read_head() else {
            return;
        };
        let window = self.window.lock().unwrap().clone();
        let target = head.line().split(' ').nth(1).unwrap().to_owned();
        self.fetches.lock().unwrap().push(target);
        let _gone = wire.write(&window.bytes());
    }
}

impl Window {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Keys(keys) => {
                let keys: Vec<_> = keys.iter().map(Key::published).collect();
                with_status("200 OK", &json!({ "keys": keys }).to_string())
            }
            Self::Raw(bytes) => bytes.clone(),
            Self::Closed => Vec::new(),
            Self::Held(latch, window) => {
                latch.wait();
                window.bytes()
            }
        }
    }

    /// An answer with a body.
    pub(crate) fn answer(status: &str, body: &str) -> Self {
        Self::Raw(with_status(status, body))
    }
}

fn with_status(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
