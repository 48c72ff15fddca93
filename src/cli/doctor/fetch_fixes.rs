//! Fixes of a failed fetch of a key set.

use http::StatusCode;

use crate::client::CallError;
use crate::keys::KeyError;
use crate::keys::fetch::FetchError;

/// Fix of a failed fetch; `None` if the error names it.
pub(super) fn fix(error: &FetchError) -> Option<&'static str> {
    match error {
        FetchError::Call(error) => of_call(error),
        FetchError::Status { status, .. } => of_status(*status),
        FetchError::Keys(KeyError::Unusable(text)) if text.starts_with("the key set") => Some(
            "the issuer must publish a public key for signatures; Better Auth creates it with the first token",
        ),
        FetchError::Keys(_) => Some(
            "the URL returns something other than a key set, such as a page of the web application: open it with curl, and \
             compare the path",
        ),
        FetchError::TokenFile(_) => Some("compare the path in `token_file`, and its permissions"),
        FetchError::KeySet { source, .. } => fix(source),
        FetchError::Unproxied { .. } | FetchError::Redirect { .. } | FetchError::Discovery(_) => {
            None
        }
    }
}

fn of_status(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => Some(
            "compare the path: Better Auth with the `jwt` plugin has `/api/auth/jwks`, and the metadata of an OIDC provider \
             has it as `jwks_uri`",
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(
            "the server wants a credential: `token_file` of `keys` sends a bearer token; key sets are public otherwise",
        ),
        StatusCode::TOO_MANY_REQUESTS => Some(
            "the issuer limits the rate of requests: Better Auth exempts the key set with `rateLimit: { customRules: { \"/jwks\": \
             false } }`",
        ),
        status if status.is_server_error() => Some(
            "the issuer or a proxy in front of it fails: look at its log; Better Auth with `allowedHosts` fails for another host: \
             set `host` to one of those hosts",
        ),
        _ => None,
    }
}

fn of_call(error: &CallError) -> Option<&'static str> {
    match error {
        CallError::Lookup { .. } => Some(
            "the name does not resolve on this machine: compare it, or use the name of the private network and set `issuer`",
        ),
        CallError::Connect(_) => Some(
            "compare host and port: 127.0.0.1 and [::1] are two addresses, and in a container both are the container's own",
        ),
        CallError::Tls(_) => Some(
            "a private authority needs `ca_file`, a server without TLS needs `http://`, and the host must be in the \
             certificate",
        ),
        CallError::TooSlow(_) => {
            Some("a firewall or a NetworkPolicy may drop the packets: allow egress to the issuer")
        }
        CallError::Http(_)
        | CallError::Body(_)
        | CallError::Truncated
        | CallError::Encoded(_)
        | CallError::Url => None,
    }
}
