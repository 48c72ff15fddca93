//! Names of headers that only the gate writes.

use http::HeaderName;

use crate::config::ConfigDocument;
use crate::gate::managed_headers::ManagedNames;

/// The header that always carries the subject.
pub(super) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// The names that only the gate may write, as this configuration has them.
pub(super) fn managed_names(document: &ConfigDocument) -> ManagedNames {
    let identity = document.config.identity.headers.keys();
    let identity: Vec<HeaderName> = identity.filter_map(|name| name.parse().ok()).collect();
    ManagedNames::new(identity.iter().chain(&[X_USER_ID]))
}
