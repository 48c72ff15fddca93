//! `claimgate doctor`: fetches every key set and connects to every upstream once, and reports problems with them or with
//! a token.

mod fetch_fixes;
mod upstreams;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Builder;

use crate::clock::{Clock, UnixTime};
use crate::config::ConfigDocument;
use crate::gate::Gate;
use crate::gate::refusal::Refusal;
use crate::gate::verify::{Issuer, IssuerId};
use crate::keys::remote::RemoteKeys;
use crate::keys::{KeyRing, VerificationKey};
use crate::observe::log::printable;

use super::{ConfigFile, Failure, Outcome, counted, say, secret_encodings, verdict, warn};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// Verify this token with every issuer.
    #[arg(long, short, value_name = "TOKEN")]
    token: Option<String>,
}

impl Doctor {
    pub(super) fn run(self) -> Outcome {
        let app = self.config.compile()?;
        for warning in &app.warnings {
            warn(format_args!("warning: {warning}"));
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::other)?;
        let document = self.config.document()?;
        let now = Clock::System.now();
        let mut gate = app.policy.gate;
        let mut all_valid = true;
        for (index, remote) in app.remote_keys.iter().enumerate() {
            let Some(issuer) = gate.issuers().get(index) else {
                continue;
            };
            match remote {
                None => say(format_args!(
                    "issuer `{}`: {}",
                    issuer.name,
                    describe(issuer.ring.keys())
                )),
                Some(remote) => match runtime.block_on(fetch(remote, issuer)) {
                    Some(ring) => gate = gate.with_ring(IssuerId(index), Arc::new(ring)),
                    None => all_valid = false,
                },
            }
        }
        for upstream in &app.policy.upstreams {
            // An API may start after the gate, so the exit code does not depend on it.
            for line in runtime.block_on(upstreams::check(upstream)) {
                say(line);
            }
        }
        if let Some(token) = &self.token {
            all_valid &= verify(&document, &gate, token, now);
        }
        Ok(if all_valid {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

async fn fetch(remote: &RemoteKeys, issuer: &Issuer) -> Option<KeyRing> {
    match remote.fetch().await {
        Ok(fetched) => {
            say(format_args!(
                "issuer `{}`: {} from {}",
                issuer.name,
                describe(&fetched.set.keys),
                remote.url()
            ));
            for skipped in &fetched.set.skipped {
                say(format_args!("  skipped {}", printable(skipped)));
            }
            Some(KeyRing::fetched(
                fetched.set.keys,
                UnixTime(0),
                Duration::MAX,
            ))
        }
        Err(error) => {
            say(format_args!(
                "issuer `{}`: failed to fetch keys from {}: {}",
                issuer.name,
                remote.url(),
                printable(&error.to_string())
            ));
            if let Some(fix) = fetch_fixes::fix(&error) {
                say(format_args!("  fix: {fix}"));
            }
            None
        }
    }
}

fn describe(keys: &[VerificationKey]) -> String {
    let one = |key: &VerificationKey| {
        let name = key.kid().map(|kid| format!("`{}` for ", printable(kid)));
        format!("{}{}", name.unwrap_or_default(), key.algorithms())
    };
    let each: Vec<String> = keys.iter().map(one).collect();
    format!("{} ({})", counted(keys.len(), "key"), each.join(", "))
}

fn verify(document: &ConfigDocument, gate: &Gate, token: &str, now: UnixTime) -> bool {
    let verdict = verdict::of(gate.issuers(), token, None, now);
    say(format_args!("\n{}", verdict.sentence));
    for other in &verdict.others {
        say(format_args!("  {other}"));
    }
    if let Some(refusal) = &verdict.refusal {
        say(format_args!("  fix: {}", refusal.row().hint));
    }
    if verdict.refusal == Some(Refusal::TokenSignature) {
        for suggestion in secret_encodings::suggestions(document, gate.issuers(), token, now) {
            say(format_args!("  {suggestion}"));
        }
    }
    verdict.refusal.is_none()
}
