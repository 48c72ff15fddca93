//! `claimgate explain`: explains the decision for one request, with the same gate that serves.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use serde_json::{Value, json};

use crate::app::App;
use crate::clock::{Clock, UnixTime};
use crate::gate::Gate;
use crate::gate::access::Rule;
use crate::gate::cache::TokenCache;
use crate::gate::cors::CorsRequest;
use crate::gate::inbound::Inbound;
use crate::gate::inbound::Scheme;
use crate::gate::permit::{Caller, KnownCaller, Permit};
use crate::gate::rate_limit::{BucketOwner, RateLimit};
use crate::gate::refusal::Refusal;
use crate::gate::resource::MetadataResponse;
use crate::gate::routes::Route;
use crate::gate::stop::{Preflight, Refused, Stop};
use crate::gate::token::TokenSource;
use crate::gate::verify::Issuer;
use crate::keys::credential::Exchanged;
use crate::observe::explanation::{self, Stage, StageResult, StoppedRequest};
use crate::observe::log;
use crate::observe::refusals::RESPONSES_PAGE;
use crate::proxy::headers::{self, Peer};
use crate::proxy::shared::Policy;
use crate::tls;

use super::exchanges::CommandExchange;
use super::key_sets::{KeySetFetch, KeySets};
use super::terminal::{BOLD, OK};
use super::{ConfigFile, Failure, Outcome, Output, OutputFormat, say, terminal, verdict};

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    key_sets: KeySetFetch,
    #[command(flatten)]
    format: OutputFormat,
    /// Bearer token of the request.
    #[arg(long, short, value_name = "TOKEN")]
    token: Option<String>,
    /// Cookies of the request, such as the session cookie of Better Auth; repeatable.
    #[arg(long = "cookie", short = 'b', value_name = "NAME=VALUE")]
    cookies: Vec<String>,
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
        let app = self.config.running_compiled()?;
        let peer = self.peer()?;
        let inbound = app.policy.headers.inbound(&peer, self.head()?);
        let now = Clock::System.now();
        let Decided {
            decision,
            sets,
            exchange,
        } = self.decide(&app, &inbound, now)?;
        let (KeySets { gate, failures }, exchange) = (&sets, exchange.as_ref());
        let cors = gate.cors_request(&inbound.head);
        let route = match &decision {
            Ok(permit) => Some(permit.route()),
            Err(Stop::Preflight(preflight)) => preflight.route.as_ref(),
            Err(stop) => stop.refused().and_then(|refused| refused.route.as_ref()),
        };
        let (method, target) = (
            &inbound.head.method,
            self.printable_target(&inbound.head, route),
        );
        if self.format.output == Output::Json {
            let report = json!({
                "request": format!("{method} {target}"),
                "result": self.report(&app.policy, gate, (&peer, &inbound), &decision, exchange),
                "exchange": exchange.map(CommandExchange::to_json),
                "failures": failures,
            });
            say(format_args!("{report:#}"));
            return Ok(match decision {
                Ok(_) | Err(Stop::Preflight(_) | Stop::Metadata(_)) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            });
        }
        say(format_args!("{BOLD}{method} {target}{BOLD:#}"));
        match &decision {
            Ok(permit) => {
                print_stages(&forwarded_stages(&app.policy, permit, exchange));
                self.print_forwarded(&app.policy, (&peer, &inbound), permit);
                let caller = match permit.caller() {
                    Caller::Known(caller) => Some(caller),
                    Caller::Anonymous => None,
                };
                print_rate_limits(route, inbound.client, caller);
                print_cors(cors.as_ref(), gate, route);
                print_exchange(exchange);
                return Ok(ExitCode::SUCCESS);
            }
            Err(Stop::Preflight(preflight)) => {
                print_preflight(preflight, gate.issuers());
                return Ok(ExitCode::SUCCESS);
            }
            Err(Stop::Metadata(metadata)) => {
                print_metadata(metadata);
                return Ok(ExitCode::SUCCESS);
            }
            Err(stop) => {
                if let Some(refused) = stop.refused() {
                    self.print_refusal(refused, &inbound, gate.issuers(), now);
                    print_near_routes(refused, gate, &inbound);
                }
                print_cors(cors.as_ref(), gate, route);
            }
        }
        print_exchange(exchange);
        if let Some(jwt) = exchange.and_then(CommandExchange::jwt) {
            let verdict = verdict::of(gate.issuers(), jwt, inbound.certificate.as_deref(), now);
            say(format_args!("that JWT: {}", verdict.sentence));
        }
        for failure in failures {
            say(format_args!("\n{failure}"));
        }
        Ok(ExitCode::FAILURE)
    }

    /// Decides as a gate does. Fetches one key set and asks one issuer, if the decision depends on them.
    fn decide(&self, app: &App, inbound: &Inbound, now: UnixTime) -> Result<Decided, Failure> {
        let mut sets = KeySets {
            gate: app.policy.gate.clone(),
            failures: Vec::new(),
        };
        let (mut exchange, mut has_fetched) = (None::<CommandExchange>, false);
        loop {
            let exchanged = exchange.as_ref().and_then(CommandExchange::exchanged);
            let decision = decide(&sets.gate, inbound, now, exchanged);
            match &decision {
                Err(Stop::NeedsKeys(needs)) if !has_fetched => {
                    has_fetched = true;
                    self.key_sets.fetch(app, needs.issuer, &mut sets, now)?;
                }
                Err(Stop::NeedsExchange(needs)) if exchange.is_none() => {
                    exchange = self.key_sets.exchange(app, needs, inbound.client, now)?;
                    if exchange.is_none() {
                        return Ok(Decided {
                            decision,
                            sets,
                            exchange,
                        });
                    }
                }
                Ok(_) | Err(_) => {
                    return Ok(Decided {
                        decision,
                        sets,
                        exchange,
                    });
                }
            }
        }
    }

    /// Request target without a token in its query.
    fn printable_target(&self, head: &Parts, route: Option<&Arc<Route>>) -> String {
        let bare = route.and_then(|route| route.access.tokens.bare_target(&head.uri));
        bare.unwrap_or_else(|| self.target.clone())
    }

    /// Prints a refusal, its cause in the token, and the rate limits counted before it.
    fn print_refusal(
        &self,
        refused: &Refused,
        inbound: &Inbound,
        issuers: &[Issuer],
        now: UnixTime,
    ) {
        print_rejected(refused, issuers, headers::is_grpc(&inbound.head.headers));
        self.print_verdict(refused, inbound, issuers, now);
        print_rate_limits(
            refused.route.as_ref(),
            inbound.client,
            refused.caller.as_ref(),
        );
    }

    /// Prints the cause of a rejected token, in more detail than the response.
    fn print_verdict(
        &self,
        refused: &Refused,
        inbound: &Inbound,
        issuers: &[Issuer],
        now: UnixTime,
    ) {
        let Some(token) = &self.token else {
            return;
        };
        let verdict = verdict::of(issuers, token, inbound.certificate.as_deref(), now);
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
        // RFC 6265 section 5.4: a client sends one field.
        if !self.cookies.is_empty() {
            let value = HeaderValue::from_str(&self.cookies.join("; "));
            let mut value = value.map_err(|_| {
                Failure::other(
                    "send the cookies: they have characters that are invalid in a header",
                )
            })?;
            value.set_sensitive(true);
            head.headers.append(COOKIE, value);
        }
        if !head.headers.contains_key(HOST) {
            head.headers
                .insert(HOST, HeaderValue::from_static("localhost"));
        }
        Ok(head)
    }

    /// The decision for programs.
    fn report(
        &self,
        policy: &Policy,
        gate: &Gate,
        request: (&Peer, &Inbound),
        decision: &Result<Permit, Stop>,
        exchange: Option<&CommandExchange>,
    ) -> Value {
        let stages = |stages: Vec<StageResult>| -> Value {
            stages.iter().map(StageResult::to_json).collect()
        };
        match decision {
            Ok(permit) => {
                let forwarding = policy.forwarding(permit.route());
                let upstream = policy.upstreams.get(forwarding.upstream.0);
                let (line, headers) = self.forwarded_head(policy, request, permit);
                json!({
                    "decision": "forwarded",
                    "stages": stages(forwarded_stages(policy, permit, exchange)),
                    "upstream": upstream.map(|upstream| &*upstream.policy.name),
                    "forwarded": { "request": line, "headers": headers },
                })
            }
            Err(Stop::Preflight(preflight)) => json!({
                "decision": "preflight",
                "stages": stages(preflight_stages(preflight, gate.issuers())),
                "response": { "status": 204 },
            }),
            Err(Stop::Metadata(metadata)) => json!({
                "decision": "metadata",
                "stages": stages(metadata_stages()),
                "response": { "status": metadata.status.as_u16() },
            }),
            Err(stop) => match stop.refused() {
                Some(refused) => json!({
                    "decision": "rejected",
                    "stages": stages(rejected_stages(refused, gate.issuers())),
                    "response": {
                        "status": refused.refusal.status().as_u16(),
                        "reason": refused.refusal.reason(),
                        "detail": refused.refusal.detail(),
                    },
                    "fix": refused.refusal.row().hint,
                    "see": RESPONSES_PAGE,
                }),
                None => json!({ "decision": "rejected" }),
            },
        }
    }

    /// Prints the request sent to the upstream.
    fn print_forwarded(&self, policy: &Policy, request: (&Peer, &Inbound), permit: &Permit) {
        let forwarding = policy.forwarding(permit.route());
        let upstream = policy.upstreams.get(forwarding.upstream.0);
        let target = upstream.map(|upstream| {
            let targets: Vec<_> = upstream
                .policy
                .targets
                .iter()
                .map(ToString::to_string)
                .collect();
            format!("`{}` at {}", upstream.policy.name, targets.join(", "))
        });
        say(format_args!(
            "\n{OK}forwarded{OK:#} to {}:\n",
            target.unwrap_or_default()
        ));
        let (line, headers) = self.forwarded_head(policy, request, permit);
        say(format_args!("  {line}"));
        for [name, value] in headers {
            say(format_args!("  {name}: {value}"));
        }
    }

    /// Request line and headers as sent to the upstream, with the credentials replaced.
    fn forwarded_head(
        &self,
        policy: &Policy,
        (peer, inbound): (&Peer, &Inbound),
        permit: &Permit,
    ) -> (String, Vec<[String; 2]>) {
        let route = permit.route();
        let forwarding = policy.forwarding(route);
        let request_id = headers::request_id(&inbound.head.headers);
        let head = policy
            .headers
            .to_upstream(inbound, permit, forwarding, peer, &request_id, None);
        let head = head.to_parts();
        let tokens = &route.access.tokens;
        let bare = tokens.filter(&head.headers, false);
        let target = policy.headers.target(permit, forwarding);
        let target = if route.access.rule == Rule::Public {
            target
        } else {
            tokens.strip_target(target)
        };
        let line = format!("{} {} HTTP/1.1", head.method, target.as_str());
        let headers = head.headers.iter().map(|(name, value)| {
            let shown = bare.value(name, value.as_bytes());
            let is_shown = shown.is_some_and(|shown| *shown == *value.as_bytes());
            let shown = if !is_shown || *name == AUTHORIZATION {
                "(as received)".into()
            } else if *name == COOKIE && !self.cookies.is_empty() {
                cookie_names(value.as_bytes()).into()
            } else {
                String::from_utf8_lossy(value.as_bytes())
            };
            [name.to_string(), log::printable(&shown).into_owned()]
        });
        (line, headers.collect())
    }
}

/// Decision of a command, and the responses of issuers that it depends on.
#[derive(Debug)]
struct Decided {
    decision: Result<Permit, Stop>,
    sets: KeySets,
    exchange: Option<CommandExchange>,
}

/// Runs every stage without counting rate limits.
fn decide(
    gate: &Gate,
    inbound: &Inbound,
    now: UnixTime,
    exchanged: Option<&Exchanged>,
) -> Result<Permit, Stop> {
    gate.route(inbound)?
        .authenticate(now, &mut TokenCache::default(), exchanged)?
        .authorize()
}

/// Names of the cookies in a field, as in `theme=(as received)`.
fn cookie_names(field: &[u8]) -> String {
    let field = String::from_utf8_lossy(field);
    let names = field.split(';').map(|pair| {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        format!("{}=(as received)", name.trim())
    });
    names.collect::<Vec<_>>().join("; ")
}

fn print_exchange(exchange: Option<&CommandExchange>) {
    if let Some(exchange) = exchange {
        say(format_args!("\nexchange: {exchange}"));
    }
}

/// Results of the stages of a permitted request.
fn forwarded_stages(
    policy: &Policy,
    permit: &Permit,
    exchange: Option<&CommandExchange>,
) -> Vec<StageResult> {
    let route = permit.route();
    let result = |stage| match (stage, permit.caller()) {
        (Stage::Route, _) => {
            let issuers = policy.gate.issuers();
            StageResult::passed(stage, explanation::describe_route(route, issuers))
        }
        (Stage::ClientRateLimit, _) => StageResult::within(stage, route.access.limits.by_client()),
        (stage, Caller::Anonymous) if stage > Stage::ClientRateLimit => {
            StageResult::skipped(stage, "the route is public")
        }
        (Stage::SubjectRateLimit, Caller::Known(_)) => {
            StageResult::within(stage, route.access.limits.by_subject())
        }
        (Stage::Verification, Caller::Known(caller)) => StageResult::verified(caller),
        (Stage::Token, Caller::Known(_)) => match (permit.source(), exchange) {
            (Some(TokenSource::Authorization), _) => StageResult::passed(stage, ""),
            (Some(source), _) => StageResult::passed(stage, format_args!("in {source}")),
            (None, Some(exchange)) => {
                StageResult::passed(stage, format_args!("in {}", exchange.credential()))
            }
            (None, None) => StageResult::passed(stage, "in the cookie cache of the session"),
        },
        _ => StageResult::passed(stage, ""),
    };
    Stage::GATE.into_iter().map(result).collect()
}

/// Results of the stages of an allowed preflight request, which ends at the route.
fn preflight_stages(preflight: &Preflight, issuers: &[Issuer]) -> Vec<StageResult> {
    let result = |stage| match stage {
        Stage::Head | Stage::Path => StageResult::passed(stage, ""),
        Stage::Route => match &preflight.route {
            Some(route) => StageResult::passed(stage, explanation::describe_route(route, issuers)),
            None => StageResult::skipped(
                stage,
                "none: the page can read the 404 or 405 of the request",
            ),
        },
        Stage::ClientRateLimit
        | Stage::Token
        | Stage::Verification
        | Stage::SubjectRateLimit
        | Stage::Authorization
        | Stage::Upstream => StageResult::skipped(stage, "not part of a preflight"),
    };
    Stage::GATE.into_iter().map(result).collect()
}

fn print_preflight(preflight: &Preflight, issuers: &[Issuer]) {
    print_stages(&preflight_stages(preflight, issuers));
    say("\nresponse 204 (preflight allowed):");
    print_headers(&preflight.headers);
}

/// Results of the stages of a request for the metadata of the protected resource, which has no route.
fn metadata_stages() -> Vec<StageResult> {
    let result = |stage| match stage {
        Stage::Head | Stage::Path => StageResult::passed(stage, ""),
        Stage::Route => StageResult::passed(stage, "the metadata of [resource]"),
        Stage::ClientRateLimit
        | Stage::Token
        | Stage::Verification
        | Stage::SubjectRateLimit
        | Stage::Authorization
        | Stage::Upstream => StageResult::skipped(stage, "the metadata is public"),
    };
    Stage::GATE.into_iter().map(result).collect()
}

fn print_metadata(metadata: &MetadataResponse) {
    print_stages(&metadata_stages());
    say(format_args!(
        "\nresponse {}, by the gate itself:",
        metadata.status
    ));
    print_headers(&metadata.headers);
    print_headers(&metadata.cors);
    let body = String::from_utf8_lossy(&metadata.body);
    if !body.is_empty() {
        say(format_args!("\n{}", body.trim_end()));
    }
}

/// Prints the routes near a path that has none.
fn print_near_routes(refused: &Refused, gate: &Gate, inbound: &Inbound) {
    if refused.refusal != Refusal::NoRoute {
        return;
    }
    let near = gate.routes().near(inbound.head.uri.path());
    if !near.is_empty() {
        say(format_args!("near routes: `{}`", near.join("`, `")));
    }
}

/// Prints the rate limits that apply to the request, with the owner of each bucket.
fn print_rate_limits(
    route: Option<&Arc<Route>>,
    client: Option<IpAddr>,
    caller: Option<&Arc<KnownCaller>>,
) {
    let Some(route) = route else {
        return;
    };
    let limits = &route.access.limits;
    let mut lines = Vec::new();
    let mut add = |limits: &[RateLimit], key: BucketOwner<'_>| {
        let key = key.to_string();
        let key = log::printable(&key);
        lines.extend(limits.iter().map(|limit| format!("  {limit}, for {key}")));
    };
    add(limits.by_client(), BucketOwner::address(client));
    if let Some(caller) = caller {
        let (issuer, subject) = (&*caller.issuer, caller.subject.as_str());
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
fn print_cors(page: Option<&CorsRequest>, gate: &Gate, route: Option<&Arc<Route>>) {
    let mut headers = HeaderMap::new();
    if let (Some(page), Some(cors)) = (page, gate.cors(route.map(AsRef::as_ref))) {
        cors.write_headers(page, &mut headers);
    }
    if !headers.is_empty() {
        say("\nCORS headers of the response:");
        print_headers(&headers);
    }
}

fn print_headers(headers: &HeaderMap) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        say(format_args!("  {name}: {}", log::printable(&value)));
    }
}

/// Results of the stages of a rejected request.
fn rejected_stages(refused: &Refused, issuers: &[Issuer]) -> Vec<StageResult> {
    let Refused {
        refusal,
        route,
        caller,
    } = refused;
    let stopped = StoppedRequest {
        refusal,
        is_permitted: false,
        cause: None,
        route: route.as_deref(),
        caller: caller.as_deref(),
    };
    explanation::stages(&stopped, issuers)
}

/// Prints the stages of a rejected request, and the response.
fn print_rejected(refused: &Refused, issuers: &[Issuer], is_grpc: bool) {
    print_stages(&rejected_stages(refused, issuers));
    let refusal = &refused.refusal;
    let detail = refusal.detail();
    let status = if is_grpc {
        format!("`grpc-status` {}", refusal.grpc_status())
    } else {
        refusal.status().to_string()
    };
    say("");
    for line in [
        format!("response {status}: {detail}"),
        format!("fix: {}", refusal.row().hint),
        format!("see: {RESPONSES_PAGE}, `{}`", refusal.reason()),
    ] {
        say(terminal::colored(&line));
    }
}

fn print_stages(stages: &[StageResult]) {
    for stage in stages {
        for line in stage.to_string().lines() {
            say(terminal::colored(line));
        }
    }
}
