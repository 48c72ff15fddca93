//! `claimgate explain`: explains the decision for one request, with the same gate that serves.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::clock::{Clock, UnixTime};
use crate::gate::cache::TokenCache;
use crate::gate::cors::CorsRequest;
use crate::gate::origin::Scheme;
use crate::gate::permit::{Caller, Permit};
use crate::gate::rate_limit::{BucketOwner, RateLimit};
use crate::gate::requirements::Rule;
use crate::gate::routes::Route;
use crate::gate::subject::Subject;
use crate::gate::token::TokenSource;
use crate::gate::verify::Issuer;
use crate::gate::{Decision, Gate, Preflight, Refused};
use crate::observe::explanation::{self, Check, CheckResult, StoppedRequest};
use crate::observe::log;
use crate::proxy::headers::{self, Peer};
use crate::proxy::shared::Policy;
use crate::tls;

use super::{ConfigFile, Failure, Outcome, compile, say, verdict};

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// Bearer token of the request.
    #[arg(long, short, value_name = "TOKEN")]
    token: Option<String>,
    /// Additional header of the request.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Client certificate: the first one in this PEM file, assumed to be trusted and presented over mTLS.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Method, as in `GET`.
    method: Method,
    /// Path with its query, as in `/api/alice/tasks`.
    target: String,
}

impl Explain {
    pub(super) fn run(self) -> Outcome {
        let app = compile(&self.config.config)?;
        let mut head = self.head()?;
        let peer = self.peer()?;
        app.policy.headers.note_peer(&peer, &mut head);
        let gate = &app.policy.gate;
        let page = gate.page(&head);
        let now = Clock::System.now();
        let decision = gate.decide(&head, now, &mut TokenCache::default());
        say(format_args!(
            "{} {}",
            head.method,
            self.shown(&head, &decision)
        ));
        let client = app.policy.headers.client_address(&peer, &head.headers);
        let is_grpc = headers::is_grpc(&head.headers);
        match decision {
            Decision::Forward(permit) => {
                forwarded(&app.policy, &peer, &mut head, &permit);
                let subject = match permit.caller() {
                    Caller::Known(caller) => Some((&caller.subject, &*caller.issuer)),
                    Caller::Anonymous => None,
                };
                counted(Some(permit.route()), client, subject);
                shown_to(page.as_ref(), gate, Some(permit.route()));
                return Ok(ExitCode::SUCCESS);
            }
            Decision::Allow(preflight) => {
                allowed(&preflight, gate.issuers());
                return Ok(ExitCode::SUCCESS);
            }
            Decision::Refuse(refused) => {
                stopped(&refused, gate.issuers(), is_grpc);
                self.in_words(&refused, &peer, gate.issuers(), now);
                let subject = refused.subject.as_ref().zip(refused.issuer.as_deref());
                counted(refused.route.as_deref(), client, subject);
                shown_to(page.as_ref(), gate, refused.route.as_deref());
            }
            Decision::NeedsKeys {
                issuer, otherwise, ..
            } => {
                stopped(&otherwise, gate.issuers(), is_grpc);
                self.in_words(&otherwise, &peer, gate.issuers(), now);
                counted(otherwise.route.as_deref(), client, None);
                if let Some(issuer) = gate.issuers().get(issuer) {
                    say(format_args!(
                        "\nIssuer `{}` has its keys at a URL, and `explain` fetches none. The running gate fetches them \
                         before it responds.",
                        issuer.name
                    ));
                }
            }
        }
        Ok(ExitCode::FAILURE)
    }

    /// Request target without a token in its query.
    fn shown(&self, head: &Parts, decision: &Decision) -> String {
        let route = match decision {
            Decision::Forward(permit) => Some(permit.route()),
            Decision::Allow(preflight) => Some(&preflight.route),
            Decision::Refuse(refused)
            | Decision::NeedsKeys {
                otherwise: refused, ..
            } => refused.route.as_ref(),
        };
        let bare = route.map(|route| without_token(head, route).uri);
        match bare {
            Some(bare) if bare.query() != head.uri.query() => bare.to_string(),
            Some(_) | None => self.target.clone(),
        }
    }

    /// Prints the cause of a rejected token, in more detail than the response.
    fn in_words(&self, refused: &Refused, peer: &Peer, issuers: &[Issuer], now: UnixTime) {
        let Some(token) = &self.token else {
            return;
        };
        let verdict = verdict::of(issuers, token, peer.certificate.as_deref(), now);
        if verdict.refusal.as_ref() == Some(&refused.refusal) {
            say(verdict.sentence);
        }
    }

    /// Peer of the request: a client on this machine.
    fn peer(&self) -> Result<Peer, Failure> {
        let mut peer = Peer::at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if let Some(file) = &self.certificate {
            let certificate = tls::client_certificate(file);
            let certificate = certificate
                .map_err(|error| Failure::other(format_args!("read the certificate: {error}")))?;
            peer.scheme = Scheme::Https;
            peer.certificate = Some(Arc::new(certificate));
        }
        Ok(peer)
    }

    fn head(&self) -> Result<Parts, Failure> {
        let target: Uri = self.target.parse().map_err(|error| {
            Failure::other(format_args!(
                "parse the target `{}`: {error}; write a path that starts with `/`",
                self.target
            ))
        })?;
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        head.uri = target;
        for header in &self.headers {
            let invalid = || {
                Failure::other(format_args!(
                    "parse the header `{header}`: write `Name: value`"
                ))
            };
            let (name, value) = header.split_once(':').ok_or_else(invalid)?;
            let name: HeaderName = name.trim().parse().map_err(|_| invalid())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| invalid())?;
            head.headers.append(name, value);
        }
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| {
                Failure::other("send the token: it has characters that are invalid in a header")
            })?;
            value.set_sensitive(true);
            head.headers.append(AUTHORIZATION, value);
        }
        if !head.headers.contains_key(HOST) {
            head.headers
                .insert(HOST, HeaderValue::from_static("localhost"));
        }
        Ok(head)
    }
}

/// Copy of the head without the token, for printing.
fn without_token(head: &Parts, route: &Route) -> Parts {
    let mut head = head.clone();
    route.tokens.strip(&mut head, false);
    head
}

/// Prints the stages of a permitted request, and the request sent to the upstream.
fn forwarded(policy: &Policy, peer: &Peer, head: &mut Parts, permit: &Permit) {
    let route = permit.route();
    for check in Check::ALL {
        match (check, permit.caller()) {
            (Check::Route, _) => passed(check, explanation::rule(route, policy.gate.issuers())),
            (Check::Token | Check::Verification | Check::Rule, Caller::Anonymous) => {
                skipped(check, "the route is public");
            }
            (Check::Verification, Caller::Known(caller)) => {
                say(CheckResult::verified(&caller.subject, &caller.issuer));
            }
            (Check::Token, Caller::Known(_)) => match permit.source() {
                None | Some(TokenSource::Authorization) => passed(check, ""),
                Some(source) => passed(check, format_args!("in {source}")),
            },
            _ => passed(check, ""),
        }
    }
    let upstream = policy.upstreams.get(route.upstream);
    let target = upstream.map(|upstream| {
        let targets: Vec<_> = upstream.targets.iter().map(ToString::to_string).collect();
        format!("`{}` at {}", upstream.name, targets.join(", "))
    });
    say(format_args!(
        "\nforwarded to {}:\n",
        target.unwrap_or_default()
    ));
    let websocket = headers::asks_for_websocket(head);
    let request_id = headers::request_id(&head.headers);
    policy
        .headers
        .to_upstream(head, permit.caller(), route, peer, &request_id, websocket);
    let bare = without_token(head, route);
    let target = if route.rule == Rule::Public {
        &head.uri
    } else {
        &bare.uri
    };
    say(format_args!("  {} {target} HTTP/1.1", head.method));
    for (name, value) in &head.headers {
        let is_shown = bare
            .headers
            .get_all(name)
            .iter()
            .any(|shown| shown == value);
        let shown = if is_shown && *name != AUTHORIZATION {
            String::from_utf8_lossy(value.as_bytes())
        } else {
            "(as received)".into()
        };
        say(format_args!("  {name}: {}", log::printable(&shown)));
    }
}

/// Prints an allowed preflight request, which ends at the route.
fn allowed(preflight: &Preflight, issuers: &[Issuer]) {
    for check in Check::ALL {
        match check {
            Check::Head | Check::Path => passed(check, ""),
            Check::Route => passed(check, explanation::rule(&preflight.route, issuers)),
            Check::Token | Check::Verification | Check::Rule | Check::Forwarding => {
                skipped(check, "a preflight request has no token");
            }
        }
    }
    say("\nresponse 204 (preflight allowed):");
    fields(&preflight.headers);
}

/// Prints the rate limits that apply to the request, with the key of each bucket.
fn counted(route: Option<&Route>, client: Option<IpAddr>, subject: Option<(&Subject, &str)>) {
    let Some(Route { limits, .. }) = route else {
        return;
    };
    let mut lines = Vec::new();
    let mut add = |limits: &[RateLimit], key: BucketOwner<'_>| {
        let key = key.to_string();
        let key = log::printable(&key);
        lines.extend(limits.iter().map(|limit| format!("  {limit}, for {key}")));
    };
    add(limits.by_address(), BucketOwner::address(client));
    if let Some((subject, issuer)) = subject {
        let subject = subject.as_str();
        add(
            limits.by_subject(),
            BucketOwner::Subject { issuer, subject },
        );
    }
    if !lines.is_empty() {
        say(format_args!("\nrate limits applied:\n{}", lines.join("\n")));
    }
}

/// Prints the CORS headers of the response to a cross-origin request.
fn shown_to(page: Option<&CorsRequest>, gate: &Gate, route: Option<&Route>) {
    let mut headers = HeaderMap::new();
    if let (Some(page), Some(cors)) = (page, gate.cors(route)) {
        cors.answer(page, &mut headers);
    }
    if !headers.is_empty() {
        say("\nCORS headers of the response:");
        fields(&headers);
    }
}

fn fields(headers: &HeaderMap) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        say(format_args!("  {name}: {}", log::printable(&value)));
    }
}

/// Prints the stages of a rejected request, and the response.
fn stopped(refused: &Refused, issuers: &[Issuer], is_grpc: bool) {
    let Refused {
        refusal,
        route,
        subject,
        issuer,
    } = refused;
    let stopped = StoppedRequest {
        refusal,
        is_permitted: false,
        cause: None,
        route: route.as_deref(),
        subject: subject.as_ref(),
        issuer: issuer.as_deref(),
    };
    for said in explanation::said(&stopped, issuers) {
        say(said);
    }
    let detail = refusal.detail();
    if is_grpc {
        let status = refusal.grpc_status();
        say(format_args!("\nresponse `grpc-status` {status}: {detail}"));
    } else {
        say(format_args!("\nresponse {}: {detail}", refusal.status()));
    }
}

fn passed(check: Check, text: impl Display) {
    say(CheckResult::passed(check, text));
}

fn skipped(check: Check, why: &str) {
    say(CheckResult::skipped(check, why));
}
