//! `claimgate token`: mints a development token, or inspects a token.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::clock::{Clock, UnixTime};
use crate::config::{self, ConfigDocument, KeyPath};
use crate::keys::Algorithm;
use crate::keys::secret::{Secret, Secrets};
use crate::observe::log;

use super::key_sets::{KeySetFetch, KeySets, describe_key};
use super::{ConfigFile, Failure, Outcome, say, verdict};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Sign a token with the shared secret of an issuer, for development.
    Mint(Mint),
    /// Decode a token, and verify it with the issuers of the configuration.
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(super) struct Mint {
    #[command(flatten)]
    config: ConfigFile,
    /// Subject of the token.
    #[arg(long, short, value_name = "SUBJECT")]
    subject: String,
    /// Issuer of the token; by default the first one with a shared secret.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Lifetime, as in `15m`; `-1h` mints a token that expired an hour ago.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        allow_hyphen_values = true
    )]
    lifetime: String,
    /// Additional claim, as in `email=alice@example.com`; a value that is valid JSON is parsed.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    key_sets: KeySetFetch,
    /// Token to inspect; `-` reads it from standard input.
    token: String,
}

impl Token {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Mint(mint) => mint.run(),
            Self::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Mint {
    fn run(self) -> Outcome {
        let document = self.config.running_document()?;
        let signer = Signer::of(&document, self.issuer.as_deref());
        // Problems of the configuration first: one of them can be the cause of a missing issuer.
        document.finish()?;
        let signer = signer?;
        let lifetime = lifetime(&self.lifetime)?;
        let mut extra = Map::new();
        for claim in &self.claims {
            let invalid = || {
                Failure::other(format_args!(
                    "parse the claim `{claim}`: write `name=value`"
                ))
            };
            let (name, value) = claim.split_once('=').ok_or_else(invalid)?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            extra.insert(name.to_owned(), value);
        }
        say(signer.sign(&self.subject, lifetime, extra, Clock::System.now())?);
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a lifetime to seconds, negative for an expired token.
fn lifetime(text: &str) -> Result<i64, Failure> {
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text), |digits| (-1, digits));
    let duration: Duration = humantime::parse_duration(digits)
        .map_err(|error| Failure::other(format_args!("parse the lifetime `{text}`: {error}")))?;
    Ok(sign * i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// Signer of development tokens: the shared secret of an issuer, and the claims that the issuer requires.
#[derive(Debug)]
pub(super) struct Signer {
    secret: Secret,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    subject_claim: String,
}

impl Signer {
    /// Signer of the issuer `name`, or of the first issuer with a shared secret.
    pub(super) fn of(document: &ConfigDocument, name: Option<&str>) -> Result<Self, Failure> {
        let mut issuers = document.config.issuers.iter();
        let has_secret = |issuer: &config::Issuer| {
            let keys = issuer.keys.as_ref();
            keys.is_some_and(|keys| keys.secret_env.is_some() || keys.secret_file.is_some())
        };
        let found = issuers.find(|(key, issuer)| match name {
            Some(name) => key.as_str() == name,
            None => has_secret(issuer),
        });
        let Some((name, issuer)) = found else {
            return Err(match name {
                Some(name) => Failure::other(format_args!(
                    "sign a token: no issuer `{name}` in the configuration; add [issuers.{name}] or name another one"
                )),
                None => Failure::other(
                    "sign a token: no issuer has a shared secret; set `keys.secret_env` or `keys.secret_file`",
                ),
            });
        };
        let keys = issuer.keys.clone().unwrap_or_default();
        let encoding = keys.encoding.unwrap_or_default();
        let secret = match (&keys.secret_env, &keys.secret_file) {
            (Some(variable), _) => {
                Secrets::from_variable(variable, document.variable(variable), encoding)
            }
            (None, Some(file)) => Secrets::from_file(file, encoding),
            (None, None) => {
                return Err(Failure::other(format_args!(
                    "sign a token: issuer `{name}` has no shared secret; set `keys.secret_env` or `keys.secret_file`"
                )));
            }
        };
        let location = document.location(&KeyPath::of("issuers").key(name));
        let secret = secret
            .map_err(|error| Failure::other(format_args!("sign a token: {location}: {error}")))?;
        let first = |texts: &Option<config::OneOrMany>| {
            texts.as_ref().and_then(|texts| texts.0.first().cloned())
        };
        let algorithms = issuer.algorithms.as_ref().and_then(|names| names.first());
        Ok(Self {
            secret: secret.current,
            algorithm: algorithms
                .and_then(|name| Algorithm::named(name))
                .unwrap_or(Algorithm::HS256),
            issuer: first(&issuer.issuer),
            audience: first(&issuer.audience),
            subject_claim: issuer
                .subject
                .first()
                .cloned()
                .unwrap_or_else(|| "sub".to_owned()),
        })
    }

    /// Signs a token that expires `lifetime` seconds after `now`.
    pub(super) fn sign(
        &self,
        subject: &str,
        lifetime: i64,
        extra: Map<String, Value>,
        now: UnixTime,
    ) -> Result<String, Failure> {
        let expires = now.0.saturating_add(lifetime);
        let mut claims = Map::new();
        claims.insert(self.subject_claim.clone(), json!(subject));
        claims.insert(
            "iat".to_owned(),
            json!(now.0.min(expires.saturating_sub(1))),
        );
        claims.insert("exp".to_owned(), json!(expires));
        claims.extend(
            self.issuer
                .as_ref()
                .map(|issuer| ("iss".to_owned(), json!(issuer))),
        );
        claims.extend(
            self.audience
                .as_ref()
                .map(|audience| ("aud".to_owned(), json!(audience))),
        );
        claims.extend(extra);
        let key = EncodingKey::from_secret(self.secret.expose());
        let signed = jsonwebtoken::encode(
            &Header::new(self.algorithm.inner().unwrap_or_default()),
            &claims,
            &key,
        );
        signed.map_err(|error| Failure::other(format_args!("sign a token: {error}")))
    }
}

impl Inspect {
    fn run(self) -> Outcome {
        let app = self.config.running_compiled()?;
        let text = if self.token == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::other(format_args!("read the token: {error}")))?;
            text.trim().to_owned()
        } else {
            self.token
        };
        let parts: Vec<&str> = text.split('.').collect();
        for (name, part) in ["header", "claims"].iter().zip(&parts) {
            match decode(part) {
                Some(json) => say(format_args!("{name}: {json}")),
                None => say(format_args!("{name}: not base64url-encoded JSON")),
            }
        }
        let now = Clock::System.now();
        let KeySets { gate, failures } = self.key_sets.for_token(&app, &text, now)?;
        let verdict = verdict::of(gate.issuers(), &text, None, now);
        if let Some(key) = verdict
            .issuer
            .and_then(|issuer| describe_key(&app, &gate, issuer, &text))
        {
            say(format_args!("key: {key}"));
        }
        say(format_args!("\n{}", verdict.sentence));
        for failure in &failures {
            say(format_args!("  {failure}"));
        }
        for other in &verdict.others {
            say(format_args!("  {other}"));
        }
        Ok(if verdict.refusal.is_none() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn decode(part: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let text = serde_json::to_string_pretty(&value).ok()?;
    // JSON escapes only some control characters, and the token is untrusted input.
    let lines: Vec<_> = text.lines().map(log::printable).collect();
    Some(lines.join("\n"))
}
