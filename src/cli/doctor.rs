//! `claimgate doctor`: tests everything outside the gate once: keys, exchanges, clock, certificates, upstreams, and
//! credentials.

mod credential;
mod fetch_fixes;
mod finding;
mod introspection;
mod sessions;
mod split_url;
mod upstreams;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::app::App;
use crate::clock::{Clock, UnixTime};
use crate::config::ConfigDocument;
use crate::gate::Gate;
use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Refusal;
use crate::keys::remote::RemoteKeys;
use crate::keys::{KeyRing, VerificationKey};
use crate::observe::log::printable;

use super::spinner::Spinner;
use super::terminal::WARNING;
use super::{
    ConfigFile, Failure, Outcome, Output, OutputFormat, counted, say, secret_encodings, verdict,
    warn,
};

use credential::CredentialTest;
use finding::Finding;
use sessions::SessionExchange;

/// Difference of the clocks that is reported: the default `leeway` of an issuer.
const MAX_CLOCK_SKEW: i64 = 30;

/// Rest of the lifetime of a certificate that is reported.
const CERTIFICATE_WARNING: Duration = Duration::from_hours(30 * 24);

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// Verify this token with every issuer; ask the issuers with `sessions` or `introspection` about an opaque one.
    #[arg(long, short, value_name = "TOKEN")]
    token: Option<String>,
    /// Exchange the session cookie among these cookies with its issuer; repeatable.
    #[arg(long = "cookie", short = 'b', value_name = "NAME=VALUE")]
    cookies: Vec<String>,
    #[command(flatten)]
    format: OutputFormat,
}

impl Doctor {
    pub(super) fn run(self) -> Outcome {
        let place = self.config.running_place()?;
        let (document, app) = (place.document()?, App::compile(place.document()?)?);
        let is_text = self.format.output == Output::Text;
        for warning in app.warnings.iter().filter(|_| is_text) {
            warn(format_args!("{WARNING}warning:{WARNING:#} {warning}"));
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::other)?;
        let now = Clock::System.now();
        let mut findings = Vec::new();
        let mut add = |finding: Finding| {
            if is_text {
                finding.print();
            }
            findings.push(finding);
        };
        let mut gate = app.policy.gate.clone();
        for (index, remote) in app.remote_keys.iter().enumerate() {
            let Some(issuer) = gate.issuers().get(index) else {
                continue;
            };
            let subject = format!("issuer `{}`", issuer.name);
            match remote {
                None => add(Finding::passed(&subject, describe(issuer.ring.keys()))),
                Some(remote) => {
                    let spinner =
                        Spinner::start(format_args!("fetching keys from {}", remote.url()));
                    let (found, ring) = runtime.block_on(fetch(&subject, remote));
                    drop(spinner);
                    found.into_iter().for_each(&mut add);
                    if let Some(ring) = ring {
                        gate = gate.with_ring(IssuerId(index), Arc::new(ring));
                    }
                }
            }
            let found = runtime.block_on(exchanges(&document, &app, index));
            found.into_iter().for_each(&mut add);
        }
        certificates(&app, now).into_iter().for_each(&mut add);
        for upstream in &app.policy.upstreams {
            // The connection of a health check is a task.
            let tasks = LocalSet::new();
            let spinner = Spinner::start(format_args!("connecting to `{}`", upstream.policy.name));
            let found = runtime.block_on(tasks.run_until(upstreams::check(upstream)));
            drop(spinner);
            found.into_iter().for_each(&mut add);
        }
        let test = CredentialTest {
            document: &document,
            app: &app,
            gate: &gate,
            now,
        };
        if is_text && (self.token.is_some() || !self.cookies.is_empty()) {
            say("");
        }
        if let Some(token) = &self.token {
            let found = runtime.block_on(test.token(token));
            found.into_iter().for_each(&mut add);
        }
        if !self.cookies.is_empty() {
            add(runtime.block_on(test.cookies(&self.cookies.join("; "))));
        }
        if !is_text {
            let report = json!({
                "warnings": app.warnings,
                "findings": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            });
            say(format_args!("{report:#}"));
        }
        Ok(if findings.iter().any(Finding::is_failure) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// Tests the exchanges with an issuer.
async fn exchanges(document: &ConfigDocument, app: &App, issuer: usize) -> Vec<Finding> {
    let issuers = app.policy.gate.issuers();
    let (Some(issuer), Some(exchangers)) = (issuers.get(issuer), app.policy.exchangers.get(issuer))
    else {
        return Vec::new();
    };
    let configured = document.config.issuers.get(&*issuer.name);
    let server = configured.and_then(|issuer| issuer.better_auth.as_ref());
    let mut findings = Vec::new();
    if let Some(server) = server
        && let Some(sessions) = &server.sessions.0
        && let Some(exchanger) = &exchangers.sessions
    {
        let settings = exchanger.settings();
        let _spinner = Spinner::start(format_args!("asking {}", settings.url));
        let exchange = SessionExchange {
            name: &issuer.name,
            server,
            sessions,
            settings,
        };
        findings.extend(exchange.check().await);
    }
    if let Some(exchanger) = &exchangers.introspection {
        let settings = exchanger.settings();
        let _spinner = Spinner::start(format_args!("asking {}", settings.url));
        findings.push(introspection::check(settings).await);
    }
    findings
}

/// Fetches a key set, and compares the clock of its server.
async fn fetch(subject: &str, remote: &RemoteKeys) -> (Vec<Finding>, Option<KeyRing>) {
    let url = remote.url();
    let fetched = match remote.fetch().await {
        Ok(fetched) => fetched,
        Err(error) => {
            let text = format!(
                "failed to fetch keys from {url}: {}",
                printable(&error.to_string())
            );
            let fix = fetch_fixes::fix(&error).map(str::to_owned);
            return (vec![Finding::failed(subject, text, fix)], None);
        }
    };
    let mut found = Finding::passed(
        subject,
        format!("{} from {url}", describe(&fetched.set.keys)),
    );
    let skipped = fetched.set.skipped.iter();
    found
        .more
        .extend(skipped.map(|skipped| format!("skipped {}", printable(skipped))));
    let mut findings = vec![found];
    let skew = fetched
        .date
        .map_or(0, |date| Clock::System.now().0 - date.0);
    if skew.abs() > MAX_CLOCK_SKEW {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        findings.push(Finding::warning(
            "clock",
            format!("this machine is {} s {direction} the server of {subject}", skew.abs()),
            "synchronize both clocks (NTP): tokens look expired, or issued in the future, by this difference",
        ));
    }
    let ring = KeyRing::fetched(fetched.set.keys, UnixTime(0), Duration::MAX);
    (findings, Some(ring))
}

fn describe(keys: &[VerificationKey]) -> String {
    let one = |key: &VerificationKey| {
        let name = key.kid().map(|kid| format!("`{}` for ", printable(kid)));
        format!("{}{}", name.unwrap_or_default(), key.algorithms())
    };
    if keys.is_empty() {
        return "no keys: it is asked about each credential".to_owned();
    }
    let each: Vec<String> = keys.iter().map(one).collect();
    format!("{} ({})", counted(keys.len(), "key"), each.join(", "))
}

/// Certificates of the gate's own listeners that have expired or end soon.
fn certificates(app: &App, now: UnixTime) -> Vec<Finding> {
    let all = app
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref());
    let expiries = all.flat_map(|tls| tls.expiries().chain(tls.crl_expiry()));
    let findings = expiries.filter_map(|(file, expiry)| {
        let expiry = expiry?;
        let subject = format!("certificate {}", file.display());
        if expiry <= now {
            let fix = "renew it; the gate reads the new file within seconds".to_owned();
            return Some(Finding::failed(&subject, "has expired", Some(fix)));
        }
        let rest = expiry.since(now);
        let days = rest.as_secs() / (24 * 60 * 60);
        Some(if rest < CERTIFICATE_WARNING {
            Finding::warning(
                &subject,
                format!("ends in {}", counted_days(days)),
                "renew it before that day",
            )
        } else {
            Finding::passed(&subject, format!("valid for {}", counted_days(days)))
        })
    });
    findings.collect()
}

fn counted_days(days: u64) -> String {
    counted(usize::try_from(days).unwrap_or(usize::MAX), "day")
}

/// Verifies a token with every issuer. The second value is the issuer that accepts it.
fn verify(
    document: &ConfigDocument,
    gate: &Gate,
    subject: &str,
    token: &str,
    now: UnixTime,
) -> (Finding, Option<IssuerId>) {
    let verdict = verdict::of(gate.issuers(), token, None, now);
    let Some(refusal) = &verdict.refusal else {
        return (Finding::passed(subject, verdict.sentence), verdict.issuer);
    };
    let fix = Some(refusal.row().hint.to_owned());
    let mut finding = Finding::failed(subject, verdict.sentence, fix);
    finding.more = verdict.others;
    if *refusal == Refusal::TokenSignature {
        let suggestions = secret_encodings::suggestions(document, gate.issuers(), token, now);
        finding.suggestions.extend(suggestions);
    } else if matches!(refusal, Refusal::TokenIssuer | Refusal::TokenAudience) {
        let suggestion = split_url::suggestion(document, gate.issuers(), token);
        finding.suggestions.extend(suggestion);
    }
    (finding, None)
}
