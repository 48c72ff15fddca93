//! Test of an endpoint with a credential that is not valid.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::client::CallError;
use crate::keys::credential::Credential;
use crate::keys::fetch::{FetchError, retry_after};

use super::{ExchangeSettings, request};

/// Response as the endpoint sent it.
#[derive(Debug)]
pub struct ProbeResponse {
    pub status: StatusCode,
    /// Delay requested by the issuer.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl ExchangeSettings {
    /// Sends a credential once, and returns the response without a judgement about the credential.
    pub async fn probe(&self, credential: &Credential) -> Result<ProbeResponse, FetchError> {
        let built = request::request(self, credential, None, false);
        let (request, url) = built.ok_or(FetchError::Call(CallError::Url))?;
        let (head, body) = self.fetcher.call(request, &url).await?.into_parts();
        Ok(ProbeResponse {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body,
        })
    }
}
