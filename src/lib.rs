//! claimgate verifies the bearer JWT of a request, checks that its subject is the user named in the path, writes
//! `X-User-Id`, and forwards the request. No request reaches the upstream without a permit, and the bytes of the
//! decision are the bytes sent.
//!
//! # A request, in stages
//!
//! **Inbound.** The kernel assigns each connection to one worker, a thread with its own event loop ([`app`]).
//! [`proxy::inbound::acceptor`] accepts the connection or rejects it above the connection limit,
//! [`proxy::inbound::socket`] enforces its deadlines, and [`proxy::inbound::serve`] runs HTTP/1.1 or HTTP/2 on it, after
//! TLS and the PROXY protocol if the listener uses them.
//!
//! **Decision.** [`proxy::Proxy::handle`] takes the worker's snapshot of the current policy ([`proxy::snapshot`]), builds
//! the input of the gate ([`gate::inbound`]) and calls the stages of the [`gate`]: functions of that input, the keys and
//! the time, without a socket, a clock or an `.await`. The proxy counts rate limits between the stages.
//!
//! [`gate::Gate::route`] has the first stages:
//!
//! 1. Request head: `gate::head` checks sizes, `Connection`, the message length ([`gate::framing`]) and `Host`.
//! 2. Canonical path: [`gate::path`] finds the only reading of the path, or rejects it.
//! 3. Route: [`gate::routes`] finds the route, and [`gate::cors`] the response to a preflight request.
//! 4. Client rate limit: [`gate::rate_limit`] by client address.
//!
//! [`gate::Routed::authenticate`] follows:
//!
//! 5. Token: [`gate::token`] takes the token from its token source; [`gate::origin`] checks the page that sent a cookie.
//! 6. Verification: [`gate::verify`] verifies the token with the keys of its issuer ([`keys`]), and [`gate::claims`]
//!    validates its claims; [`gate::cache`] holds verified tokens. An unknown key triggers a fetch and a second attempt, a
//!    session or an opaque token an exchange with its issuer ([`keys::exchange`]).
//! 7. Subject rate limit: [`gate::rate_limit`] by subject.
//!
//! [`gate::Authenticated::authorize`] is the last:
//!
//! 8. Authorization: [`gate::access`] checks the owner and the requirements of the route ([`gate::requirement`]).
//!
//! The result is a permit ([`gate::permit`]) or a stop ([`gate::stop`]): a refusal ([`gate::refusal`]), a preflight
//! response, or a need for newer keys or for an exchange.
//!
//! **Upstream.** [`proxy::headers`] turns the head of the decision into the forwarded head, by the settings of the route
//! ([`proxy::forwarding`]). [`proxy::upstream`] consumes the permit: it picks an endpoint, checks out a connection of the
//! worker's own pool, and sends the request. [`proxy::websocket`] has the WebSocket handshake, [`proxy::tunnel`] the
//! connection after it.
//!
//! **Response.** [`proxy::respond`] finishes every response, the upstream's and the gate's own. Bodies stream in both
//! directions ([`proxy::request_body`], [`proxy::response_body`]); [`proxy::stream_deadlines`] limits their life.
//!
//! **Record.** After the last byte of the response, [`proxy::exchange`] records the exchange once, whatever its outcome:
//! as a log line, metrics and a span ([`observe`]).

pub mod cli;
pub mod config;

pub mod app;
pub mod client;
pub mod clock;
mod excerpt;
pub mod files;
mod happy_eyeballs;
pub mod tls;
mod unkeyed_hash;

pub mod gate;
pub mod keys;

pub mod proxy;

pub mod observe;

pub mod openapi;
