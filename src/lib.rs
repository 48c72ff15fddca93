//! claimgate verifies the bearer JWT of a request, checks that its subject is the user named in the path, writes
//! `X-User-Id`, and forwards. No request reaches the upstream unless it was judged, and the bytes that were judged are
//! the bytes that are sent.
//!
//! # The life of a request
//!
//! A client connects. The kernel gives the connection to one of the workers, each a thread with an event loop of its
//! own ([`app`]), and it stays there. [`proxy::inbound::acceptor`] accepts it, or turns it away if there are too many;
//! [`proxy::inbound::socket`] keeps its deadlines, and [`proxy::inbound::serve`] speaks HTTP on it.
//!
//! When a whole head has arrived, [`proxy::Proxy::handle`] takes the policy in force and asks its [`gate`]. The gate
//! is a function of the head, the keys and the time: it finds the one reading of the path ([`gate::path`]) or refuses,
//! finds the route ([`gate::routes`]), takes the one token ([`gate::token`]), verifies it ([`gate::verify`]) with the
//! keys of its issuer ([`keys`]), and asks the route's rule ([`gate::requirements`]). Out comes a permit ([`gate::permit`]) or a
//! refusal ([`gate::refusal`]); or, when a key is not known and may be new, the wish for a fetch, and then it is asked
//! once more.
//!
//! A refusal is answered from the one table, and a browser that asks whether a page may send something ([`gate::cors`])
//! without a token. With a permit, [`proxy::headers`] turns the head that was judged into the head that is sent, and
//! [`proxy::upstream`] uses the permit up: a connection from the worker's own pool, the request, the answer.
//! Bodies pass in both directions as they come ([`proxy::body`]). When the last byte is out, the exchange
//! ([`proxy::exchange`]) is recorded, once, whatever became of it ([`observe`]).

pub mod cli;
pub mod config;

pub mod app;
pub mod client;
pub mod clock;
pub mod files;
pub mod tls;

pub mod gate;
pub mod keys;

pub mod proxy;

pub mod observe;
