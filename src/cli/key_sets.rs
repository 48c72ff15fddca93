//! Key sets of issuers, fetched once for a command.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Builder;

use crate::app::App;
use crate::clock::UnixTime;
use crate::config::{Issuer, Keys};
use crate::gate::Gate;
use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Refusal;
use crate::gate::token::BearerToken;
use crate::gate::verify;
use crate::keys::KeyRing;
use crate::keys::remote::{Fetched, RemoteKeys};
use crate::observe::log::printable;

use super::Failure;
use super::spinner::Spinner;

/// Requests to issuers that a command needs.
#[derive(Debug, Args)]
pub(super) struct KeySetFetch {
    /// Send no request to an issuer.
    #[arg(long)]
    offline: bool,
}

/// Gate with fetched keys.
#[derive(Debug)]
pub(super) struct KeySets {
    pub(super) gate: Gate,
    /// Reasons why key sets are missing, one line each.
    pub(super) failures: Vec<String>,
}

impl KeySetFetch {
    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// Fetches the key set of each issuer that needs it to verify this token.
    pub(super) fn for_token(
        &self,
        app: &App,
        token: &str,
        now: UnixTime,
    ) -> Result<KeySets, Failure> {
        let mut sets = KeySets {
            gate: app.policy.gate.clone(),
            failures: Vec::new(),
        };
        let longest = verify::max_token_bytes(app.policy.gate.issuers());
        let Ok(token) = BearerToken::new(token, longest) else {
            return Ok(sets);
        };
        for (index, issuer) in app.policy.gate.issuers().iter().enumerate() {
            let verified = verify::verify(std::slice::from_ref(issuer), token, None, now);
            let needs_keys =
                verified.is_err_and(|unverified| unverified.refusal == Refusal::KeysUnavailable);
            if needs_keys {
                self.fetch(app, IssuerId(index), &mut sets, now)?;
            }
        }
        Ok(sets)
    }

    /// Fetches the key set of one issuer.
    pub(super) fn fetch(
        &self,
        app: &App,
        id: IssuerId,
        sets: &mut KeySets,
        now: UnixTime,
    ) -> Result<(), Failure> {
        let issuer = sets.gate.issuers().get(id.0);
        let remote = app.remote_keys.get(id.0).and_then(Option::as_ref);
        let (Some(issuer), Some(remote)) = (issuer, remote) else {
            return Ok(());
        };
        let (name, url) = (&issuer.name, remote.url());
        if self.offline {
            sets.failures.push(format!(
                "issuer `{name}`: no keys from {url}, because of `--offline`"
            ));
            return Ok(());
        }
        let _spinner = Spinner::start(format_args!("fetching keys from {url}"));
        let runtime = Builder::new_current_thread().enable_all().build();
        match runtime.map_err(Failure::other)?.block_on(remote.fetch()) {
            Ok(Fetched { set, .. }) => {
                // Fetched for one decision, so the keys do not expire.
                let ring = KeyRing::fetched(set.keys, now, Duration::MAX);
                sets.gate = sets.gate.with_ring(id, Arc::new(ring));
            }
            Err(error) => {
                let error = error.to_string();
                sets.failures.push(format!(
                    "issuer `{name}`: failed to fetch keys from {url}: {}",
                    printable(&error)
                ));
            }
        }
        Ok(())
    }
}

/// Key ID, algorithms, type and source of the key that verifies this token, from its issuer: the `kid` of a token is only
/// a claim.
pub(super) fn describe_key(app: &App, gate: &Gate, id: IssuerId, token: &str) -> Option<String> {
    let issuer = gate.issuers().get(id.0)?;
    let token = BearerToken::new(token, issuer.max_token_bytes).ok()?;
    let key = verify::signing_key(issuer, token)?;
    let remote = app.remote_keys.get(id.0).and_then(Option::as_ref);
    let configured = app.config.issuers.get(&*issuer.name);
    let kid = key.kid().map(|kid| format!("`{}` ", printable(kid)));
    Some(format!(
        "{}({}, {}) from {}",
        kid.unwrap_or_default(),
        key.algorithms(),
        key.kind().name(),
        source(remote, configured)
    ))
}

/// Source of the keys of an issuer.
fn source(remote: Option<&RemoteKeys>, issuer: Option<&Issuer>) -> String {
    if let Some(remote) = remote {
        return remote.url().to_string();
    }
    let keys = issuer.and_then(|issuer| issuer.keys.as_ref());
    let file = |keys: &Keys| {
        let files = [&keys.secret_file, &keys.pem_file, &keys.jwks_file];
        let file = files.into_iter().flatten().next()?;
        Some(file.display().to_string())
    };
    let variable = |keys: &Keys| {
        let name = keys.secret_env.as_ref()?;
        Some(format!("the environment variable `{name}`"))
    };
    let named = keys.and_then(|keys| file(keys).or_else(|| variable(keys)));
    named.unwrap_or_else(|| "the configuration".to_owned())
}
