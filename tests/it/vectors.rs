//! Published test vectors, with valid and invalid signatures: Wycheproof and the RFCs. Each is verified with
//! [`VerificationKey::verifies`] and a key that the loaders of the gate have read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claimgate::config::Encoding;
use claimgate::keys::secret::Secret;
use claimgate::keys::{Algorithm, KeyError, KeyKind, KeyRing, VerificationKey, jwks, pem};
use serde::Deserialize;
use serde_json::{Value, json};
use wycheproof::{ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

/// Vectors of one family of algorithms, with the numbers of accepted, rejected and skipped ones.
struct Set {
    name: &'static str,
    family: &'static str,
    json: &'static str,
    counts: [usize; 3],
}

macro_rules! set {
    ($module:ident :: $name:ident, $family:literal, $accepted:literal, $rejected:literal, $skipped:literal) => {
        Set {
            name: stringify!($name),
            family: $family,
            json: $module::TestName::$name.json_data(),
            counts: [$accepted, $rejected, $skipped],
        }
    };
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    public_key: Option<Value>,
    public_key_pem: Option<String>,
    #[serde(alias = "keyJwk")]
    public_key_jwk: Option<Value>,
    sha: Option<String>,
    mgf_sha: Option<String>,
    s_len: Option<usize>,
    tag_size: Option<usize>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: usize,
    comment: String,
    key: Option<String>,
    msg: String,
    #[serde(alias = "tag")]
    sig: String,
    result: String,
    flags: Vec<String>,
}

/// Outcome of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Rejected,
    /// The gate does not load the key: a secret shorter than the hash (RFC 7518 section 3.2), or an unsupported curve. Or
    /// the signature is valid for another algorithm, in a set for an algorithm that the gate does not support.
    Skipped,
}

#[test]
fn matches_every_wycheproof_hmac() {
    run(&[
        set!(mac::HmacSha256, "HS", 30, 138, 6),
        set!(mac::HmacSha384, "HS", 30, 138, 6),
        set!(mac::HmacSha512, "HS", 30, 138, 6),
    ]);
}

#[test]
fn matches_every_wycheproof_ecdsa_signature() {
    run(&[
        set!(ecdsa::EcdsaSecp256r1Sha256P1363, "ES", 173, 89, 0),
        set!(ecdsa::EcdsaSecp384r1Sha384P1363, "ES", 193, 87, 0),
        set!(ecdsa::EcdsaSecp521r1Sha512P1363, "ES", 231, 87, 0),
    ]);
}

/// RFC 7518 section 3.4: each curve has one hash, and a signature is two numbers of full length, never DER.
#[test]
fn rejects_an_ecdsa_signature_in_der_or_with_another_hash() {
    run(&[
        set!(ecdsa::EcdsaSecp256r1Sha256, "DER", 0, 484, 0),
        set!(ecdsa::EcdsaSecp384r1Sha384, "DER", 0, 504, 0),
        set!(ecdsa::EcdsaSecp521r1Sha512, "DER", 0, 542, 0),
        set!(ecdsa::EcdsaSecp256r1Sha512P1363, "other hash", 0, 332, 0),
        set!(ecdsa::EcdsaSecp384r1Sha512P1363, "other hash", 0, 318, 0),
        set!(ecdsa::EcdsaSecp256k1Sha256P1363, "other curve", 0, 0, 252),
    ]);
}

#[test]
fn matches_every_wycheproof_ed25519_signature() {
    run(&[set!(eddsa::Ed25519, "EdDSA", 88, 63, 0)]);
}

#[test]
fn matches_every_wycheproof_rsa_signature() {
    run(&[
        set!(rsa_pkcs1_verify::Rsa2048Sha256, "RS", 9, 250, 0),
        set!(rsa_pkcs1_verify::Rsa2048Sha384, "RS", 7, 251, 0),
        set!(rsa_pkcs1_verify::Rsa2048Sha512, "RS", 8, 251, 0),
        set!(rsa_pkcs1_verify::Rsa3072Sha256, "RS", 8, 251, 0),
        set!(rsa_pkcs1_verify::Rsa3072Sha384, "RS", 7, 252, 0),
        set!(rsa_pkcs1_verify::Rsa3072Sha512, "RS", 8, 252, 0),
        set!(rsa_pkcs1_verify::Rsa4096Sha256, "RS", 7, 251, 0),
        set!(rsa_pkcs1_verify::Rsa4096Sha384, "RS", 7, 252, 0),
        set!(rsa_pkcs1_verify::Rsa4096Sha512, "RS", 7, 252, 0),
        set!(rsa_pkcs1_verify::Rsa8192Sha256, "RS", 7, 251, 0),
        set!(rsa_pkcs1_verify::Rsa2048Sha224, "RS", 0, 234, 24),
        set!(rsa_pkcs1_verify::Rsa2048Sha512_256, "RS", 0, 234, 23),
        set!(rsa_pkcs1_verify::Rsa2048Sha3_256, "RS", 0, 234, 23),
    ]);
}

#[test]
fn matches_every_wycheproof_pss_signature() {
    run(&[
        set!(
            rsa_pss_verify::RsaPss2048Sha256Mgf1SaltLen32,
            "PS",
            63,
            45,
            0
        ),
        set!(
            rsa_pss_verify::RsaPss2048Sha384Mgf1SaltLen48,
            "PS",
            95,
            46,
            0
        ),
        set!(
            rsa_pss_verify::RsaPss3072Sha256Mgf1SaltLen32,
            "PS",
            63,
            45,
            0
        ),
        set!(
            rsa_pss_verify::RsaPss4096Sha256Mgf1SaltLen32,
            "PS",
            63,
            45,
            0
        ),
        set!(
            rsa_pss_verify::RsaPss4096Sha384Mgf1SaltLen48,
            "PS",
            95,
            46,
            0
        ),
        set!(
            rsa_pss_verify::RsaPss4096Sha512Mgf1SaltLen64,
            "PS",
            132,
            47,
            0
        ),
        // Other salt lengths and mask hashes than those of PS256 to PS512 (RFC 7518 section 3.5).
        set!(
            rsa_pss_verify::RsaPss4096Sha512Mgf1SaltLen32,
            "PS",
            0,
            169,
            8
        ),
        set!(rsa_pss_verify::RsaPss2048Sha256Mgf1SaltLen0, "PS", 0, 98, 5),
        set!(rsa_pss_verify::RsaPss2048Sha256Mgf1Sha1_20, "PS", 0, 100, 8),
        set!(rsa_pss_verify::RsaPss2048Sha1Mgf1SaltLen20, "PS", 0, 80, 8),
        set!(rsa_pss_verify::RsaPssmisc, "PS", 3, 147, 0),
    ]);
}

fn run(sets: &[Set]) {
    let mut differences = Vec::new();
    for set in sets {
        let file: File = serde_json::from_str(set.json).unwrap();
        let mut counts = [0; 3];
        for group in &file.test_groups {
            let loaded = group.keys();
            for vector in &group.tests {
                let expected = set.expected(group, vector);
                let found = match vector.secret().as_ref().unwrap_or(&loaded) {
                    Ok(keys) => set.verify(group, vector, keys),
                    Err(_) => Outcome::Skipped,
                };
                if found != expected {
                    differences.push(format!(
                        "{}: {} ({}, {:?}): expected {expected:?}, found {found:?}",
                        set.name, vector.tc_id, vector.comment, vector.flags
                    ));
                }
                counts[expected as usize] += 1;
            }
        }
        assert_eq!(counts.iter().sum::<usize>(), file.number_of_tests);
        eprintln!("{:30} {counts:?}", set.name);
        if counts != set.counts {
            differences.push(format!("{}: {:?}, not {counts:?}", set.name, set.counts));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

impl Set {
    fn expected(&self, group: &Group, vector: &Vector) -> Outcome {
        if self.family == "other curve" {
            return Outcome::Skipped;
        }
        let Some(algorithm) = self.algorithm(group, vector) else {
            return if vector.is_of_another_algorithm() {
                Outcome::Skipped
            } else {
                Outcome::Rejected
            };
        };
        let hash_bits = algorithm.name().get(2..).and_then(|bits| bits.parse().ok());
        if algorithm.kind() == KeyKind::Secret
            && hash_bits.is_some_and(|bits: usize| vector.key.as_ref().unwrap().len() * 4 < bits)
        {
            // RFC 7518 section 3.2: a key must be at least as long as the hash.
            return Outcome::Skipped;
        }
        let is_truncated = group.tag_size.is_some_and(|size| hash_bits != Some(size));
        match vector.result.as_str() {
            "valid" if !is_truncated => Outcome::Accepted,
            // `acceptable` is PKCS #1 padding without the NULL that RFC 8017 section 9.2 requires.
            "valid" | "invalid" | "acceptable" => Outcome::Rejected,
            other => panic!("{}: {other}", self.name),
        }
    }

    /// JWA algorithm of the vector, if there is one.
    fn algorithm(&self, group: &Group, vector: &Vector) -> Option<Algorithm> {
        let bits = match (&group.sha, &vector.key) {
            (Some(sha), _) => sha.strip_prefix("SHA-")?.to_owned(),
            (None, Some(_)) => self.name.strip_prefix("HmacSha")?.to_owned(),
            (None, None) => String::new(),
        };
        // RFC 7518 section 3.5: the mask uses the same hash, and the salt has the length of the hash.
        let salt = group.s_len.map(|bytes| (bytes * 8).to_string());
        if salt.is_some_and(|salt| salt != bits)
            || group
                .mgf_sha
                .as_ref()
                .is_some_and(|mask| Some(mask) != group.sha.as_ref())
        {
            return None;
        }
        Algorithm::named(&format!("{}{bits}", self.family))
    }

    /// Verifies a vector with every form of its key. All forms must agree.
    fn verify(&self, group: &Group, vector: &Vector, keys: &[VerificationKey]) -> Outcome {
        let (message, signature) = (from_hex(&vector.msg), from_hex(&vector.sig));
        let own = self.algorithm(group, vector);
        if own.is_some_and(|own| keys.iter().all(|key| !key.is_for(own)))
            || own.is_none() && vector.is_of_another_algorithm()
        {
            return Outcome::Skipped;
        }
        let verdicts = keys.iter().map(|key| {
            let verifies = |algorithm, message: &[u8], signature: &[u8]| {
                key.verifies(algorithm, message, &URL_SAFE_NO_PAD.encode(signature))
            };
            let mut others = Algorithm::ALL.into_iter().filter(|one| Some(*one) != own);
            let mut by_another = || others.find(|other| verifies(*other, &message, &signature));
            let Some(own) = own else {
                return by_another().is_some();
            };
            let is_valid = verifies(own, &message, &signature);
            if is_valid {
                assert_eq!(by_another(), None, "{}: {}", self.name, vector.tc_id);
                let more = [&message[..], b"\0"].concat();
                assert!(
                    !verifies(own, &more, &signature),
                    "{}: {}",
                    self.name,
                    vector.tc_id
                );
                for changed in changed(&signature) {
                    assert!(
                        !verifies(own, &message, &changed),
                        "{}: {}",
                        self.name,
                        vector.tc_id
                    );
                }
            }
            is_valid
        });
        let verdicts: BTreeSet<bool> = verdicts.collect();
        assert_eq!(
            verdicts.len(),
            1,
            "{}: {}: the forms of the key disagree",
            self.name,
            vector.tc_id
        );
        if verdicts.contains(&true) {
            Outcome::Accepted
        } else {
            Outcome::Rejected
        }
    }
}

/// Changes a signature: one bit at its start, middle and end; one byte shorter; one byte longer.
fn changed(signature: &[u8]) -> Vec<Vec<u8>> {
    let flipped = [0, signature.len() / 2, signature.len() - 1].map(|at| {
        let mut flipped = signature.to_vec();
        // Not the last bit: for s = (n + 1) / 2 that gives the equivalent (n - 1) / 2, which is valid too.
        flipped[at] ^= 0x20;
        flipped
    });
    let mut all = flipped.to_vec();
    all.push(signature[1..].to_vec());
    all.push([signature, b"\0"].concat());
    all
}

impl Group {
    /// Loads the key of the group in every available form: PEM, published JWK, JWK built from its numbers.
    fn keys(&self) -> Result<Vec<VerificationKey>, KeyError> {
        let mut keys = Vec::new();
        if let Some(text) = &self.public_key_pem {
            keys.extend(pem::parse(text, Some(&Algorithm::ALL))?);
        }
        let published = self.public_key_jwk.clone();
        for mut jwk in published
            .into_iter()
            .chain(self.public_key.as_ref().map(jwk_of))
        {
            jwk.as_object_mut().unwrap().remove("alg");
            let set = json!({"keys": [jwk]}).to_string();
            keys.extend(jwks::parse(set.as_bytes(), Some(&Algorithm::ALL))?.keys);
        }
        Ok(keys)
    }
}

impl Vector {
    /// Reports whether the vector is invalid only because its signature is valid for another algorithm, which the gate may
    /// support without supporting the algorithm of the set.
    fn is_of_another_algorithm(&self) -> bool {
        let is_flagged = |name| self.flags.iter().any(|flag| flag == name);
        is_flagged("WrongHash")
            || is_flagged("WrongPrimitive")
            || self.comment.starts_with("s_len changed")
    }

    /// Loads the secret of an HMAC.
    fn secret(&self) -> Option<Result<Vec<VerificationKey>, KeyError>> {
        let secret = Secret::decode(self.key.as_ref()?.clone().into(), Encoding::Hex).unwrap();
        let long_enough = |one: &Algorithm| secret.verification_key(Some(&[*one])).is_ok();
        let algorithms: Vec<_> = Algorithm::ALL.into_iter().filter(long_enough).collect();
        let key = secret.verification_key(Some(&algorithms));
        Some(key.map(|key| vec![key]))
    }
}

fn jwk_of(numbers: &Value) -> Value {
    let text = |name: &str| numbers[name].as_str().unwrap_or_default();
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let kind = numbers.get("type").map_or("RSA", |_| text("type"));
    match kind {
        "EcPublicKey" => {
            let point = from_hex(text("uncompressed"));
            let (x, y) = point[1..].split_at(point.len() / 2);
            let curve = match text("curve") {
                "secp256r1" => "P-256",
                "secp384r1" => "P-384",
                "secp521r1" => "P-521",
                other => other,
            };
            json!({"kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y)})
        }
        "EDDSAPublicKey" => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(&from_hex(text("pk")))})
        }
        "RSA" => {
            let (n, e) = (from_hex(text("modulus")), from_hex(text("publicExponent")));
            json!({"kty": "RSA", "n": encoded(&n), "e": encoded(&e)})
        }
        other => panic!("{other}"),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// Wycheproof file of signed tokens, with the expected result of a JOSE library.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    number_of_tests: usize,
    test_groups: Vec<TokenGroup>,
}

#[derive(Deserialize)]
struct TokenGroup {
    comment: String,
    public: Option<Value>,
    private: Option<Value>,
    tests: Vec<TokenVector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenVector {
    tc_id: usize,
    comment: String,
    jws: Value,
    result: String,
}

/// Deliberate differences from the Wycheproof results, with the reason.
const DIFFERENCES: [(&str, usize, &str); 10] = [
    (
        "json_web_signature",
        346,
        "the key is for PS256 and the token is PS384: RFC 7517 section 4.4",
    ),
    ("json_web_signature", 350, "the same, with key_ops"),
    (
        "json_web_signature",
        347,
        "the key is for ES521, which is not an algorithm",
    ),
    ("json_web_signature", 351, "the same, with key_ops"),
    (
        "json_web_signature",
        367,
        "invalid by its comment, but the same bytes as 357, which is valid",
    ),
    ("json_web_signature", 370, "the same"),
    (
        "json_web_signature",
        372,
        "valid if a `?` in base64url is skipped: RFC 7515 section 2 does not permit it",
    ),
    ("json_web_signature", 373, "the same, in the payload"),
    (
        "json_web_key",
        2,
        "a set of two shared secrets, which the gate does not accept in a set",
    ),
    (
        "json_web_key",
        7,
        "an RSA key of a weak generator (ROCA): the issuer must replace it",
    ),
];

#[test]
fn matches_every_wycheproof_token() {
    let mut differences = Vec::new();
    for (name, counts) in [("json_web_signature", [42, 359]), ("json_web_key", [5, 21])] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/wycheproof")
            .join(format!("{name}_test.json"));
        let file: Tokens = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let mut found = [0, 0];
        for group in &file.test_groups {
            let ring = KeyRing::local(group.keys().unwrap_or_default());
            for vector in &group.tests {
                let is_valid = vector.jws.as_str().is_some_and(|jws| is_signed(jws, &ring));
                found[usize::from(!is_valid)] += 1;
                let differs = DIFFERENCES
                    .iter()
                    .any(|(file, id, _)| (*file, *id) == (name, vector.tc_id));
                if is_valid != ((vector.result == "valid") != differs) {
                    differences.push(format!(
                        "{name}: {} ({}, {}): {}, {:?}",
                        vector.tc_id,
                        group.comment,
                        vector.comment,
                        vector.result,
                        group.keys()
                    ));
                }
            }
        }
        eprintln!("{name:30} {found:?}");
        assert_eq!(found.iter().sum::<usize>(), file.number_of_tests);
        if found != counts {
            differences.push(format!("{name}: {counts:?}, not {found:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Reports whether a key of the ring signed a token. The payload may be anything.
fn is_signed(jws: &str, ring: &KeyRing) -> bool {
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return false;
    };
    let Ok(header) = URL_SAFE_NO_PAD.decode(header) else {
        return false;
    };
    let Ok(header) = serde_json::from_slice::<Value>(&header) else {
        return false;
    };
    let (signing_input, _) = jws.rsplit_once('.').unwrap();
    let algorithm = header["alg"].as_str().and_then(Algorithm::named);
    URL_SAFE_NO_PAD.decode(payload).is_ok()
        && algorithm.is_some_and(|algorithm| {
            let mut keys = ring.keys_for(header["kid"].as_str());
            keys.any(|key| key.verifies(algorithm, signing_input.as_bytes(), signature))
        })
}

impl TokenGroup {
    /// Loads the public keys or the secret.
    fn keys(&self) -> Result<Vec<VerificationKey>, KeyError> {
        let given = self.public.as_ref().or(self.private.as_ref()).unwrap();
        let listed = given["keys"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![given.clone()]);
        match &listed[..] {
            [one] if one["kty"] == "oct" => secret_of(one).map(|key| vec![key]),
            _ => Ok(jwks::parse(json!({"keys": listed}).to_string().as_bytes(), None)?.keys),
        }
    }
}

fn secret_of(jwk: &Value) -> Result<VerificationKey, KeyError> {
    let secret = Secret::decode(jwk["k"].as_str().unwrap().into(), Encoding::Base64url)?;
    match jwk["alg"].as_str().map(Algorithm::named) {
        None => secret.verification_key(None),
        Some(algorithm) => secret.verification_key(Some(algorithm.as_slice())),
    }
}

/// Example signature of an RFC. The payload may be anything.
#[derive(Deserialize)]
struct Example {
    name: String,
    algorithm: String,
    key: Value,
    signing_input: String,
    signature: String,
}

#[test]
fn verifies_every_rfc_example_and_rejects_every_change_to_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens/examples.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let examples: Vec<Example> = serde_json::from_value(file["examples"].clone()).unwrap();
    assert_eq!(examples.len(), 9);
    for Example {
        name,
        algorithm,
        key,
        signing_input,
        signature,
    } in examples
    {
        let own = Algorithm::named(&algorithm).unwrap();
        let key = match key["kty"].as_str() {
            Some("oct") => secret_of(&key).unwrap(),
            _ => jwks::parse(json!({"keys": [key]}).to_string().as_bytes(), Some(&[own]))
                .unwrap()
                .keys
                .remove(0),
        };
        let input = signing_input.as_bytes();
        assert!(key.verifies(own, input, &signature), "{name}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != own) {
            assert!(
                !key.verifies(other, input, &signature),
                "{name} as {other:?}"
            );
        }
        for at in 0..input.len() {
            let mut changed = input.to_vec();
            changed[at] ^= 1;
            assert!(
                !key.verifies(own, &changed, &signature),
                "{name}: byte {at} of the signing input"
            );
        }
        let raw = URL_SAFE_NO_PAD.decode(&signature).unwrap();
        for at in 0..raw.len() * 8 {
            let mut changed = raw.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert!(
                !key.verifies(own, input, &changed),
                "{name}: bit {at} of the signature"
            );
        }
        // RFC 7515 appendix A.5: an unsecured token has an empty signature.
        assert!(!key.verifies(own, input, ""), "{name}");
    }
    assert_eq!(Algorithm::named("none"), None);
}
