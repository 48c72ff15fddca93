//! Registry of metrics by name, while names come and go with the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub trait Named {
    /// Name in the configuration.
    fn name(&self) -> &str;
}

/// Metrics by name. An entry outlives its name in the configuration: a counter must not go backwards when the name comes
/// back. Written by the control thread only.
#[derive(Debug)]
pub struct MetricsRegistry<T> {
    all: ArcSwap<BTreeMap<String, Arc<T>>>,
    configured: ArcSwap<Vec<Arc<T>>>,
}

impl<T> Default for MetricsRegistry<T> {
    fn default() -> Self {
        Self {
            all: ArcSwap::default(),
            configured: ArcSwap::default(),
        }
    }
}

impl<T: Named> MetricsRegistry<T> {
    /// Replaces the entries of the configuration in force.
    pub fn replace(&self, configured: Vec<Arc<T>>) {
        let mut all = BTreeMap::clone(&self.all.load());
        all.extend(
            configured
                .iter()
                .map(|one| (one.name().to_owned(), Arc::clone(one))),
        );
        self.all.store(Arc::new(all));
        self.configured.store(Arc::new(configured));
    }

    /// Entry of a name that is or was in the configuration.
    pub fn find(&self, name: &str) -> Option<Arc<T>> {
        self.all.load().get(name).cloned()
    }

    /// All entries, also of names that have left the configuration.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.all.load().values().cloned().collect()
    }

    /// Entries of the configuration in force.
    pub(super) fn configured(&self) -> Arc<Vec<Arc<T>>> {
        self.configured.load_full()
    }
}
