//! Near routes of a path without a route, for the operator.

use super::pattern::{PathPattern, Segment};

/// Paths with more segments have no near routes: the comparison takes quadratic time.
const MAX_SEGMENTS: usize = 32;

/// Cost of a missing segment, and of one too many.
const GAP: usize = 3;

/// Cost of another word in place of a literal.
const OTHER_WORD: usize = 5;

/// Cost of a literal with a typing error, and of another case.
const TYPING_ERROR: usize = 2;
const OTHER_CASE: usize = 1;

/// Distance of a decoded path from a pattern, 0 if it matches; `None` if they have little in common.
pub(super) fn distance(pattern: &PathPattern, path: &str) -> Option<usize> {
    let path: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let mut segments = pattern.segments();
    if let Some((Segment::Literal(last), before)) = segments.split_last()
        && last.is_empty()
    {
        segments = before;
    }
    if path.len() > MAX_SEGMENTS {
        return None;
    }
    // Edit distance over segments. `costs` holds the costs of the pattern so far, for each start of the path.
    let mut costs: Vec<usize> = (0..=path.len()).map(|count| count * GAP).collect();
    for segment in segments {
        let mut next = Vec::with_capacity(costs.len());
        let mut left = costs.first().map_or(GAP, |cost| cost + GAP);
        if matches!(segment, Segment::Rest(_)) {
            left = costs.first().copied().unwrap_or_default();
        }
        next.push(left);
        let above = costs.iter().zip(costs.iter().skip(1));
        for ((diagonal, up), received) in above.zip(&path) {
            left = match segment {
                Segment::Rest(_) => *up.min(&left).min(diagonal),
                Segment::Literal(_) | Segment::Parameter { .. } => (diagonal
                    + replacement(segment, received))
                .min(up + GAP)
                .min(left + GAP),
            };
            next.push(left);
        }
        costs = next;
    }
    let cost = *costs.last()?;
    // One segment more or less, or two with typing errors.
    (cost <= GAP + OTHER_CASE && cost < OTHER_WORD * path.len()).then_some(cost)
}

fn replacement(segment: &Segment, received: &str) -> usize {
    match segment {
        Segment::Literal(text) if text == received => 0,
        Segment::Literal(text) if text.eq_ignore_ascii_case(received) => OTHER_CASE,
        Segment::Literal(text) => {
            let edits = strsim::damerau_levenshtein(text, received);
            if edits <= 1 + text.len() / 4 && edits < text.len() {
                TYPING_ERROR
            } else {
                OTHER_WORD
            }
        }
        Segment::Parameter { prefix, suffix, .. } => {
            let matches = received.len() > prefix.len() + suffix.len()
                && received.starts_with(prefix)
                && received.ends_with(suffix);
            if matches { 0 } else { OTHER_WORD }
        }
        Segment::Rest(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_or_one_segment_is_near() {
        for (pattern, path, expected) in [
            ("/api/{user_id}/tasks", "/api/alice/tasks", Some(0)),
            (
                "/api/{user_id}/tasks",
                "/api/alice/taks",
                Some(TYPING_ERROR),
            ),
            ("/api/{user_id}/tasks", "/api/alice/Tasks", Some(OTHER_CASE)),
            ("/api/{user_id}/tasks", "/api/alice/tasks/", Some(0)),
            ("/api/{user_id}/tasks", "/alice/tasks", Some(GAP)),
            ("/api/{user_id}/tasks", "/api/alice/tasks/1", Some(GAP)),
            (
                "/api/{user_id}/tasks/{*rest}",
                "/apis/alice/tasks/1/2",
                Some(TYPING_ERROR),
            ),
            ("/api/{user_id}/tasks/{*rest}", "/api/tasks/1/2", Some(GAP)),
            ("/api/{user_id}/tasks", "/api/alice/notes", None),
            ("/api/{user_id}/tasks", "/", None),
            ("/health", "/healthz", Some(TYPING_ERROR)),
            ("/health", "/metrics", None),
            ("/health", "/", None),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            assert_eq!(distance(&parsed, path), expected, "{pattern} {path}");
        }
        let parsed = PathPattern::parse("/a/{*rest}").unwrap();
        assert_eq!(distance(&parsed, &"/a".repeat(4000)), None);
    }
}
