//! What a route demands of its caller.

use super::path::BoundSegment;
use super::refusal::{Mismatch, Refusal};
use super::subject::Subject;

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Everybody; no token is looked at.
    Public,
    /// Everybody with a good token.
    Authenticated,
    /// Only the subject that the parameter names.
    Owner {
        /// The parameter of the path that names the owner.
        parameter: String,
        /// What anybody else is told.
        mismatch: Mismatch,
    },
}

impl Rule {
    /// Admits a verified subject to a path whose owner, if the rule has one, is `owner`.
    pub(super) fn admit(
        &self,
        subject: &Subject,
        owner: Option<BoundSegment<'_>>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Public | Self::Authenticated => Ok(()),
            Self::Owner { mismatch, .. } => {
                let same = owner.is_some_and(|owner| owner.names(subject.as_str()));
                if same {
                    Ok(())
                } else {
                    Err(Refusal::SubjectMismatch(*mismatch))
                }
            }
        }
    }
}
