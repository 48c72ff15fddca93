//! Range checks shared by several sections.

use std::time::Duration;

use crate::config::{ConfigDocument, KeyPath};

/// Reports a share outside the range 0 to 1.
pub(super) fn check_share(document: &mut ConfigDocument, path: KeyPath, share: f64) {
    if !(0.0..=1.0).contains(&share) {
        document.report(
            path,
            format!("must be between 0 and 1, got {share}; 0.1 is one in ten"),
        );
    }
}

/// Reports a duration of zero.
pub(super) fn check_time(document: &mut ConfigDocument, path: &KeyPath, time: Option<Duration>) {
    if time == Some(Duration::ZERO) {
        document.report(path.clone(), "must be greater than zero");
    }
}
