//! Better Auth as the gate sees it: key set, `/token` and `/get-session`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Arrived, Exchange, Key, Latch, NOW, Next, Upstream};

/// Signature part of every session cookie.
const SIGNATURE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D";

/// Server of sessions, with a log of its requests.
pub(super) struct BetterAuth {
    server: Upstream,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Users by session token.
    sessions: Mutex<BTreeMap<String, String>>,
    failure: Mutex<Option<Failure>>,
    /// Claims that replace those of the JWTs.
    claims: Mutex<Value>,
    origin: Mutex<String>,
    hold: Mutex<Option<Latch>>,
}

/// Response to every exchange.
#[derive(Clone)]
pub(super) enum Failure {
    Status(&'static str, &'static str),
    Closed,
    Body(&'static str),
}

impl BetterAuth {
    pub(super) fn start() -> Self {
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let server = Upstream::responding(move |exchange| respond(&shared, exchange));
        *state.origin.lock().unwrap() = server.url();
        Self { server, state }
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Signs a user in. Returns the session token.
    pub(super) fn sign_in(&self, user: &str) -> String {
        let token = format!("{user:x<32}");
        let mut sessions = self.state.sessions.lock().unwrap();
        sessions.insert(token.clone(), user.to_owned());
        token
    }

    pub(super) fn sign_out(&self, token: &str) {
        self.state.sessions.lock().unwrap().remove(token);
    }

    pub(super) fn fail(&self, failure: impl Into<Option<Failure>>) {
        *self.state.failure.lock().unwrap() = failure.into();
    }

    /// Sets claims of the JWTs.
    pub(super) fn set_claims(&self, claims: Value) {
        *self.state.claims.lock().unwrap() = claims;
    }

    /// Holds every exchange until the latch opens.
    pub(super) fn hold(&self, latch: &Latch) {
        *self.state.hold.lock().unwrap() = Some(latch.clone());
    }

    /// Exchanges so far.
    pub(super) fn exchanges(&self) -> Vec<Arrived> {
        let mut arrived = self.server.arrived();
        arrived.retain(|request| !request.head.line().contains("/jwks"));
        arrived
    }

    pub(super) fn wait_for_exchanges(&self, count: usize) {
        crate::harness::eventually("exchanges", || self.exchanges().len() >= count);
    }
}

/// Field of a request with the session cookie.
pub(super) fn cookie(token: &str) -> String {
    format!("Cookie: better-auth.session_token={token}.{SIGNATURE}")
}

fn respond(state: &State, exchange: &mut Exchange) -> Next {
    if exchange.body().is_none() {
        return Next::Close;
    }
    let target = exchange.target();
    let path = target.split('?').next().unwrap_or_default();
    if path == "/api/auth/jwks" {
        let keys = json!({ "keys": [Key::ed25519("one").public_jwk()] });
        return exchange.respond("200 OK", "", &keys.to_string());
    }
    let hold = state.hold.lock().unwrap().clone();
    if let Some(latch) = hold {
        latch.wait();
    }
    match state.failure.lock().unwrap().clone() {
        Some(Failure::Status(status, lines)) => return exchange.respond(status, lines, "{}"),
        Some(Failure::Closed) => return Next::Close,
        Some(Failure::Body(body)) => return exchange.respond("200 OK", "", body),
        None => {}
    }
    let sessions = state.sessions.lock().unwrap();
    let credential = exchange.head.value("authorization");
    let credential = credential.or_else(|| exchange.head.value("cookie"));
    let user = credential.and_then(|text| {
        let known = sessions
            .iter()
            .find(|(token, _)| text.contains(token.as_str()));
        known.map(|(_, user)| user.clone())
    });
    let renewed = "Set-Cookie: other=1\r\nSet-Cookie: better-auth.session_data=x\r\n";
    let renewed = match exchange
        .head
        .value("cookie")
        .filter(|_| !target.contains("disableRefresh"))
    {
        Some(cookie) => format!("{renewed}Set-Cookie: {cookie}; Max-Age=604800; HttpOnly\r\n"),
        None => renewed.to_owned(),
    };
    match (path, user) {
        ("/api/auth/token", Some(user)) => {
            let origin = state.origin.lock().unwrap().clone();
            let mut claims =
                json!({ "sub": user, "iss": origin, "aud": origin, "iat": NOW, "exp": NOW + 900 });
            if let Value::Object(more) = state.claims.lock().unwrap().clone() {
                claims.as_object_mut().unwrap().extend(more);
            }
            let body = json!({ "token": Key::ed25519("one").sign(&claims) });
            exchange.respond("200 OK", &renewed, &body.to_string())
        }
        ("/api/auth/get-session", Some(user)) => {
            let body = json!({
                "session": { "token": "secret", "userId": user, "expiresAt": "2027-01-22T00:00:00.000Z" },
                "user": { "id": user, "email": format!("{user}@example.com"), "role": "admin" },
            });
            exchange.respond("200 OK", &renewed, &body.to_string())
        }
        ("/api/auth/get-session", None) => exchange.respond("200 OK", "", "null"),
        ("/api/auth/token", None) => exchange.respond("401 Unauthorized", "", "{}"),
        _ => exchange.respond("404 Not Found", "", "{}"),
    }
}
