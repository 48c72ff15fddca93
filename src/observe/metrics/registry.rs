//! What is counted by name, while names come and go with the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// What has a name.
pub trait Named {
    /// The name in the configuration.
    fn name(&self) -> &str;
}

/// By name, all that was ever counted: a counter must not go backwards when its name comes back. Only the control thread
/// writes it.
#[derive(Debug)]
pub struct MetricsRegistry<T> {
    all: ArcSwap<BTreeMap<String, Arc<T>>>,
    in_force: ArcSwap<Vec<Arc<T>>>,
}

impl<T> Default for MetricsRegistry<T> {
    fn default() -> Self {
        Self {
            all: ArcSwap::default(),
            in_force: ArcSwap::default(),
        }
    }
}

impl<T: Named> MetricsRegistry<T> {
    /// These are in the configuration from now on.
    pub fn replace(&self, in_force: Vec<Arc<T>>) {
        let mut all = BTreeMap::clone(&self.all.load());
        all.extend(
            in_force
                .iter()
                .map(|one| (one.name().to_owned(), Arc::clone(one))),
        );
        self.all.store(Arc::new(all));
        self.in_force.store(Arc::new(in_force));
    }

    /// What is counted under a name, whether it is in the configuration now or was.
    pub fn find(&self, name: &str) -> Option<Arc<T>> {
        self.all.load().get(name).cloned()
    }

    /// What counts on: also what is not in the configuration any more.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.all.load().values().cloned().collect()
    }

    /// What is in the configuration.
    pub fn in_force(&self) -> Arc<Vec<Arc<T>>> {
        self.in_force.load_full()
    }
}
