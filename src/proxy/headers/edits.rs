//! Header edits of a route.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::managed_headers::alike;

/// Headers to set and to remove. None of them is a header that the gate writes or reads itself.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    /// Headers and their only values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Headers to remove, by exact name.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Returns whether a received header is removed: by its name, or because a set header replaces it in every spelling.
    pub(super) fn remove(&self, name: &HeaderName) -> bool {
        self.remove.contains(name)
            || self
                .set
                .iter()
                .any(|(set, _)| alike(name.as_str(), set.as_str()))
    }

    /// Headers to write. Of several spellings of a name, the last one counts.
    pub(super) fn written(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        let set = self.set.iter().enumerate();
        set.filter_map(|(index, field)| {
            let mut later = self.set.iter().skip(index + 1);
            let is_last = !later.any(|(other, _)| alike(field.0.as_str(), other.as_str()));
            is_last.then_some(field)
        })
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            // The upstream relies on this value: a client must not supply it in another spelling.
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
    fn a_set_header_has_one_value_in_one_spelling() {
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
