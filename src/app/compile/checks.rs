//! Range checks shared by several sections.

use std::path::Path;
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

/// Longest path of a Unix socket in bytes: `sun_path` of unix(7), without its final NUL.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Problem of a Unix socket path that the system does not accept.
pub(super) fn socket_path_problem(path: &Path) -> Option<String> {
    let length = path.as_os_str().len();
    (length > MAX_SOCKET_PATH).then(|| {
        format!(
            "has a socket path of {length} bytes, and the system allows at most {MAX_SOCKET_PATH}; use a shorter path"
        )
    })
}

/// Reports a duration of zero.
pub(super) fn check_time(document: &mut ConfigDocument, path: &KeyPath, time: Option<Duration>) {
    if time == Some(Duration::ZERO) {
        document.report(path.clone(), "must be greater than zero");
    }
}
