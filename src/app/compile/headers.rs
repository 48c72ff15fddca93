//! Names of managed headers.

use http::HeaderName;

use crate::config::{ConfigDocument, KeyPath};
use crate::gate::managed_headers::ManagedNames;

/// Identity header of the subject, always set.
pub(super) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Identity header of the client that the token was issued to, set if the token has one.
pub(super) const X_CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// Managed headers of this configuration, including its identity headers.
pub(super) fn managed_names(document: &ConfigDocument) -> ManagedNames {
    let identity = document.config.identity.headers.keys();
    let identity: Vec<HeaderName> = identity.filter_map(|name| name.parse().ok()).collect();
    ManagedNames::new(identity.iter().chain(&[X_USER_ID, X_CLIENT_ID]))
}

/// Forwarding headers that are kept from trusted proxies.
pub(super) fn trusted(document: &mut ConfigDocument) -> Vec<HeaderName> {
    let listen = KeyPath::of("listen");
    let path = listen.key("trusted_headers");
    let named = document.config.listen.trusted_headers.clone();
    let trusts_no_proxy = document.config.listen.trusted_proxies.is_empty()
        && !document.is_invalid(&listen.key("trusted_proxies"));
    if !named.is_empty() && trusts_no_proxy {
        document.report(path.clone(), "has no effect without `trusted_proxies`");
    }
    let managed = managed_names(document);
    let elements: Vec<KeyPath> = document.elements(&path).take(named.len()).collect();
    let mut trusted = Vec::new();
    for (name, element) in named.iter().zip(elements) {
        let Ok(header) = name.parse::<HeaderName>() else {
            document.report(element, "is not a valid header name");
            continue;
        };
        let text = header.as_str();
        if managed.is_identity(text) {
            document.report(element, "is an identity header, which only the gate writes");
        } else if text == "forwarded" || text.starts_with("x-forwarded-") {
            document.report(
                element,
                "is kept from trusted proxies anyway; remove it here",
            );
        } else if managed.covers(text) {
            trusted.push(header);
        } else {
            document.report(
                element,
                "is not a forwarding header, so it is forwarded from every client; remove it here",
            );
        }
    }
    trusted
}
