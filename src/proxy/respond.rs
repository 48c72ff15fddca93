//! Responses to the client: the one place that finishes them, whether they come from the upstream or from the gate.

use bytes::Bytes;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, Response, StatusCode, Version, response};

use crate::gate::cors::replace_headers;
use crate::gate::framing::write_response_length;
use crate::gate::refusal::{Mismatch, Refusal};
use crate::gate::resource::MetadataResponse;
use crate::gate::stop::Preflight;

use super::exchange::Exchange;
use super::forwarding::Forwarding;
use super::headers::X_REQUEST_ID;
use super::response_body::ResponseBody;
use super::shared::Phase;
use super::snapshot::Snapshot;
use super::{ClientResponse, Proxy};

/// Protection space in a challenge (RFC 9110 section 11.5).
pub(super) const REALM: &str = "claimgate";

impl Proxy {
    /// Adds the gate's fields to a response head: request ID, CORS, rate limits, the end of the connection and HSTS.
    fn finish(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, exchange.request_id().clone());
        exchange.write_cors(headers);
        exchange.write_cookie(headers);
        // A response that hides the owner must look like the response without a route, which has no limit.
        if exchange.refusal() != Some(&Refusal::SubjectMismatch(Mismatch::NotFound)) {
            exchange.write_limits(headers);
        }
        if self.closes_connection(exchange) {
            exchange.connection().close_connection(headers);
        }
        if let Some(hsts) = &exchange.connection().listener().hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// Turns a response head of the upstream into the one for the client.
    pub(super) fn finish_upstream(
        &self,
        snapshot: &Snapshot,
        forwarding: &Forwarding,
        exchange: &Exchange,
        head: &mut response::Parts,
    ) {
        head.version = Version::HTTP_11;
        snapshot.policy.headers.to_client(&mut head.headers);
        write_response_length(head.status, &mut head.headers);
        forwarding.response_headers.apply(&mut head.headers);
        self.finish(exchange, &mut head.headers);
    }

    /// Returns whether the connection ends with this response: the gate drains, the client has stalled, or the rest of
    /// the request is indistinguishable from the next request. Over HTTP/2, streams separate requests.
    fn closes_connection(&self, exchange: &Exchange) -> bool {
        // A WebSocket over HTTP/1.1 takes the connection over.
        if exchange.is_upgraded() {
            return false;
        }
        let (is_over, is_ambiguous) = match exchange.refusal() {
            Some(Refusal::Overloaded | Refusal::Draining | Refusal::RequestTimeout) => {
                (true, false)
            }
            Some(
                Refusal::RequestMalformed
                | Refusal::BodyTooLarge
                | Refusal::HeadersTooLarge
                | Refusal::TargetTooLong,
            ) => (false, true),
            _ => (false, false),
        };
        self.shared.phase() != Phase::Serving
            || is_over
            || (is_ambiguous && !exchange.is_http2())
            || exchange.leaves_body_unread()
    }

    /// Responds with a refusal.
    pub(super) fn refuse(&self, mut exchange: Box<Exchange>, refusal: Refusal) -> ClientResponse {
        let (status, mut headers, body) = if let Some(protocol) = exchange.grpc() {
            let (status, headers) = refusal.grpc_response(REALM, protocol);
            (status, headers, Bytes::new())
        } else {
            refusal.response(REALM)
        };
        if let Some(challenge) = exchange.resource_challenge() {
            challenge.write(&refusal, &mut headers);
        }
        exchange.write_dpop_challenge(&mut headers);
        exchange.refused(refusal);
        self.respond(exchange, status, headers, body)
    }

    /// Responds to a CORS preflight that the gate allows.
    pub(super) fn allow(
        &self,
        mut exchange: Box<Exchange>,
        preflight: Preflight,
    ) -> ClientResponse {
        let Preflight { route, headers } = preflight;
        let status = StatusCode::NO_CONTENT;
        exchange.preflight_allowed(route, status);
        let mut response = self.respond(exchange, status, HeaderMap::new(), Bytes::new());
        response.headers_mut().extend(headers);
        response
    }

    /// Responds with the metadata of the protected resource.
    pub(super) fn send_metadata(
        &self,
        mut exchange: Box<Exchange>,
        metadata: MetadataResponse,
    ) -> ClientResponse {
        let MetadataResponse {
            status,
            headers,
            cors,
            body,
        } = metadata;
        exchange.responded(status);
        let mut response = self.respond(exchange, status, headers, body);
        replace_headers(response.headers_mut(), cors);
        response
    }

    fn respond(
        &self,
        exchange: Box<Exchange>,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> ClientResponse {
        self.finish(&exchange, &mut headers);
        let mut response = Response::new(ResponseBody::local(body, exchange));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
