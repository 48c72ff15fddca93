//! A Better Auth server whose tokens name another URL than the gate fetches keys from.

use crate::config::ConfigDocument;
use crate::gate::token::BearerToken;
use crate::gate::verify::{self, Issuer};
use crate::observe::log::printable;

use super::super::verdict;

/// The line that accepts a token which a configured server signed under another URL.
pub(super) fn suggestion(
    document: &ConfigDocument,
    issuers: &[Issuer],
    token: &str,
) -> Option<String> {
    let public = verdict::claimed_issuer(token)?;
    let mut servers = issuers.iter().filter_map(|issuer| {
        let server = document.config.issuers.get(&*issuer.name)?;
        Some((issuer, server.better_auth.as_ref()?))
    });
    let (issuer, server) = servers.find(|(issuer, _)| {
        let token = BearerToken::new(token, issuer.max_token_bytes);
        token.is_ok_and(|token| verify::signing_key(issuer, token).is_some())
    })?;
    let public = printable(&public);
    let is_table = server.sessions.0.is_some() || server.host.is_some() || server.ca_file.is_some();
    let fix = if is_table {
        format!("set `public = \"{public}\"` in its `better_auth`")
    } else {
        let (url, http) = (
            &server.url,
            if server.allow_http {
                ", allow_http = true"
            } else {
                ""
            },
        );
        format!("write `better_auth = {{ url = \"{url}\", public = \"{public}\"{http} }}`")
    };
    Some(format!(
        "the key set of issuer `{}` verifies the signature, so the server has two URLs; {fix}",
        issuer.name,
    ))
}
