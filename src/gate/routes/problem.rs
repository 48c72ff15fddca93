//! Problems of configured routes.

use std::fmt::Write;

use http::Method;

use crate::gate::path::PathFault;

use super::foreign::ForeignSyntax;

/// Reason why the table rejects a route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteProblem {
    #[error("must start with `/`, got an empty string")]
    Empty,
    #[error("`{pattern}` {fault}")]
    Path {
        pattern: String,
        fault: &'static str,
    },
    #[error("`{pattern}` has the route syntax of another framework, `{written}`; {fix}")]
    ForeignSyntax {
        pattern: String,
        written: String,
        fix: String,
    },
    #[error("`{pattern}` matches no request: {fault}")]
    NoRequest { pattern: String, fault: PathFault },
    /// An owner rule would compare only one of the two segments.
    #[error("`{pattern}` has two parameters `{{{parameter}}}`; give each a different name")]
    DuplicateParameter { pattern: String, parameter: String },
    #[error(
        "`{pattern}` conflicts with route `{with}`: some requests match both; use the same parameter names, or make the \
         paths distinct"
    )]
    Conflict {
        pattern: String,
        /// Path of the other route.
        with: String,
    },
    #[error(
        "another route has the path `{pattern}` and the method {method}; remove the method from one of them"
    )]
    Duplicate { pattern: String, method: Method },
    /// Some APIs treat both paths as one, and a caller would choose the access by the spelling.
    #[error(
        "`{pattern}` and route `{with}` are one path to an API that ignores case, a trailing `/`, leading zeros or \
         `;`, but their access differs; make it the same, or keep one of them"
    )]
    Spelling { pattern: String, with: String },
    #[error(
        "`{pattern}` has no segment `{{{parameter}}}`, which `owner` names; add the segment or change `owner`"
    )]
    MissingOwner { pattern: String, parameter: String },
}

impl RouteProblem {
    pub(super) fn foreign(pattern: &str, foreign: ForeignSyntax) -> Self {
        let ForeignSyntax {
            written,
            ours,
            text,
        } = foreign;
        let mut fix = match ours {
            Some(ours) => format!("write `{ours}`"),
            None => "remove it: a pattern matches the whole path".to_owned(),
        };
        if let Some(text) = text {
            let _infallible = write!(fix, ", or `{text}` for the text itself");
        }
        Self::ForeignSyntax {
            pattern: pattern.to_owned(),
            written,
            fix,
        }
    }
}
