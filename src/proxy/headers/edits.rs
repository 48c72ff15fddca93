//! What a route sets and removes in the headers that pass.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::managed_headers::alike;

/// Headers to set and headers to remove. None of them is one that the gate writes or reads itself.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    /// The one value that a header has from now on.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// The headers that are taken away, by their exact names.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Edits the headers of a message.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            // A value that the upstream is to rely on must not come from the client in another spelling.
            let alike = |other: &&HeaderName| alike(other.as_str(), name.as_str());
            let spellings: Vec<HeaderName> = headers.keys().filter(alike).cloned().collect();
            for spelling in spellings {
                headers.remove(spelling);
            }
            headers.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_the_only_value_and_what_is_removed_is_gone() {
        let edits = HeaderEdits {
            set: vec![(
                HeaderName::from_static("x-tenant"),
                HeaderValue::from_static("acme"),
            )],
            remove: vec![HeaderName::from_static("x-debug")],
        };
        let mut headers = HeaderMap::new();
        for name in [
            "x-tenant",
            "x-tenant",
            "x_tenant",
            "x.tenant",
            "http_x_tenant",
            "x-debug",
            "x-debug",
            "x_debug",
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("evil"),
            );
        }
        edits.apply(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        assert_eq!(left, [("x-tenant", "acme"), ("x_debug", "evil")]);
    }
}
