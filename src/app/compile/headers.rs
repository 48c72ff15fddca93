//! Names of managed headers.

use http::HeaderName;

use crate::config::ConfigDocument;
use crate::gate::managed_headers::ManagedNames;

/// Identity header of the subject, always set.
pub(super) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Managed headers of this configuration, including its identity headers.
pub(super) fn managed_names(document: &ConfigDocument) -> ManagedNames {
    let identity = document.config.identity.headers.keys();
    let identity: Vec<HeaderName> = identity.filter_map(|name| name.parse().ok()).collect();
    ManagedNames::new(identity.iter().chain(&[X_USER_ID]))
}
