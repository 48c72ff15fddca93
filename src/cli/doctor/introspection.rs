//! Test of token introspection (RFC 7662), by a token that does not exist.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::cli::exchanges::request;
use crate::keys::credential::{Credential, CredentialForm};
use crate::keys::exchange::{ExchangeSettings, ProbeResponse};
use crate::observe::log::printable;

use super::fetch_fixes;
use super::finding::Finding;

const UNKNOWN_TOKEN: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Fix of a URL that is not the endpoint.
const URL_FIX: &str =
    "compare `url` with the `introspection_endpoint` in the metadata of the issuer";

/// Asks about an unknown token once.
pub(super) async fn check(settings: &ExchangeSettings) -> Finding {
    let subject = format!("introspection of issuer `{}`", settings.issuer);
    let request = request(settings);
    let credential = Credential::new(CredentialForm::AccessToken, UNKNOWN_TOKEN);
    let response = match settings.probe(&credential).await {
        Ok(response) => response,
        Err(error) => {
            let text = format!("{request}: {}", printable(&error.to_string()));
            let fix = fetch_fixes::fix(&error).map(str::to_owned);
            return Finding::failed(&subject, text, fix);
        }
    };
    match (response.status, is_active(&response)) {
        (StatusCode::OK, Some(false)) => {
            let max_age = Duration::from_secs(settings.max_age.unsigned_abs());
            let text = format!(
                "{request} reports an unknown token as not active; a revocation takes effect within {}",
                humantime::format_duration(max_age)
            );
            Finding::passed(&subject, text)
        }
        (StatusCode::OK, Some(true)) => {
            let text = format!("{request} reports an unknown token as active");
            Finding::failed(&subject, text, Some(URL_FIX.to_owned()))
        }
        (StatusCode::OK, None) => {
            let text = format!("{request}: the body is not a JSON object with `active`");
            Finding::failed(&subject, text, Some(URL_FIX.to_owned()))
        }
        (status, _) => {
            let text = format!("{request}: status: {status}");
            if status == StatusCode::TOO_MANY_REQUESTS {
                let fix = "raise the rate limit of the issuer, or `max_age` of `introspection`";
                return Finding::warning(&subject, text, fix);
            }
            Finding::failed(&subject, text, Some(fix_of_status(status).to_owned()))
        }
    }
}

/// `active` of the response.
fn is_active(response: &ProbeResponse) -> Option<bool> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    body.get("active")?.as_bool()
}

fn fix_of_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "compare `client_id` and the client secret with the registration at the issuer"
        }
        StatusCode::BAD_REQUEST => {
            "register the client with `client_secret_basic` at the issuer: the gate authenticates with HTTP Basic"
        }
        StatusCode::FORBIDDEN => "allow this client to introspect tokens at the issuer",
        status if status.is_server_error() => {
            "the issuer or a proxy in front of it fails: look at its log; Better Auth with `allowedHosts` fails for another \
             host: set `host` in `introspection` to one of those hosts"
        }
        _ => URL_FIX,
    }
}
