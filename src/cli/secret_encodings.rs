//! Search for the encoding in which a shared secret verifies a token.

use std::slice;
use std::sync::Arc;

use crate::clock::UnixTime;
use crate::config::{ConfigDocument, Encoding, Keys};
use crate::gate::refusal::Refusal;
use crate::gate::token::BearerToken;
use crate::gate::verify::{self, Issuer};
use crate::keys::secret::Secrets;
use crate::keys::{Algorithm, KeyRing};

/// Encodings with their name in the configuration.
const ENCODINGS: [(Encoding, &str); 4] = [
    (Encoding::Utf8, "utf8"),
    (Encoding::Base64, "base64"),
    (Encoding::Base64url, "base64url"),
    (Encoding::Hex, "hex"),
];

/// Suggests another `encoding` for each issuer, if its secret verifies the token in that encoding alone.
pub(super) fn suggestions(
    document: &ConfigDocument,
    issuers: &[Issuer],
    token: &str,
    now: UnixTime,
) -> Vec<String> {
    let configured = document.config.issuers.values();
    let with_keys = configured
        .zip(issuers)
        .filter_map(|(configured, issuer)| Some((configured.keys.as_ref()?, configured, issuer)));
    with_keys
        .filter_map(|(keys, configured, issuer)| {
            let names = configured.algorithms.as_ref();
            let algorithms: Option<Vec<Algorithm>> = names
                .map(|names| names.iter().filter_map(|name| Algorithm::named(name)).collect());
            let current = keys.encoding.unwrap_or_default();
            let mut others = ENCODINGS.iter().filter(|(other, _)| *other != current);
            let (_, name) = others.find(|(other, _)| {
                let ring = ring(document, keys, *other, algorithms.as_deref());
                ring.is_some_and(|ring| verifies(issuer, ring, token, now))
            })?;
            Some(format!(
                "issuer `{}`: the signature is valid if the secret is read as {name}: set `encoding = \"{name}\"` in \
                 its `keys`",
                issuer.name
            ))
        })
        .collect()
}

/// Keys of the secret in this encoding; `None` if the issuer has no secret, or an unusable one in this encoding.
fn ring(
    document: &ConfigDocument,
    keys: &Keys,
    encoding: Encoding,
    algorithms: Option<&[Algorithm]>,
) -> Option<KeyRing> {
    let secrets = match (&keys.secret_env, &keys.secret_file) {
        (Some(name), _) => Secrets::from_variable(name, document.variable(name), encoding),
        (None, Some(file)) => Secrets::from_file(file, encoding),
        (None, None) => return None,
    };
    let keys = secrets.ok()?.verification_keys(algorithms).ok()?;
    Some(KeyRing::local(keys))
}

/// Returns whether these keys verify the signature, whatever the claims are.
fn verifies(issuer: &Issuer, ring: KeyRing, token: &str, now: UnixTime) -> bool {
    let issuer = Issuer {
        ring: Arc::new(ring),
        ..issuer.clone()
    };
    let Ok(token) = BearerToken::new(token, issuer.max_token_bytes) else {
        return false;
    };
    match verify::verify(slice::from_ref(&issuer), token, None, now) {
        Ok(_) => true,
        // The checks of the claims come after the signature.
        Err(unverified) => matches!(
            unverified.refusal,
            Refusal::TokenExpired
                | Refusal::TokenNotYetValid
                | Refusal::TokenLifetime
                | Refusal::TokenAudience
                | Refusal::TokenSubject
                | Refusal::TokenConfirmation
                | Refusal::TokenMachine
        ),
    }
}
