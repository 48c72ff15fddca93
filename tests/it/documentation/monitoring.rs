//! Tests of alerts and dashboard: their metrics, labels and reasons exist, and operations.md lists every alert.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{exposition, labels, read, root, rows};

/// Labels that a scrape adds, and the label of a histogram bucket.
const SCRAPE_LABELS: [&str; 5] = ["instance", "job", "le", "namespace", "pod"];

/// Metrics and reasons of the gate.
struct Known {
    exposition: String,
    reasons: BTreeSet<String>,
}

impl Known {
    fn new() -> Self {
        let mut reasons = BTreeSet::new();
        for page in ["docs/reference/responses.md", "docs/reference/metrics.md"] {
            for name in rows(page).concat().join(" ").split('`').skip(1).step_by(2) {
                reasons.insert(name.to_owned());
            }
        }
        assert!(reasons.contains("subject_mismatch"), "{reasons:?}");
        Self {
            exposition: exposition(),
            reasons,
        }
    }

    /// Labels of a metric, if it exists.
    fn labels(&self, metric: &str) -> Option<Vec<String>> {
        let is_sample = |line: &str| {
            let rest = line.strip_prefix(metric);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        self.exposition.lines().find(|line| is_sample(line))?;
        let listed = labels(&self.exposition, metric);
        let names = listed.split(", ").map(|name| name.trim_matches('`'));
        Some(names.map(str::to_owned).collect())
    }

    /// Unknown metrics, labels and reasons in an expression and in the template of its result.
    fn problems(&self, expression: &str, shown: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut all: BTreeSet<String> = SCRAPE_LABELS.map(str::to_owned).into();
        let mut metrics = 0;
        for (at, _) in expression.match_indices("claimgate_") {
            let rest = &expression[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (metric, rest) = rest.split_at(end.unwrap_or(rest.len()));
            metrics += 1;
            let Some(labels) = self.labels(metric) else {
                problems.push(format!("unknown metric {metric}"));
                continue;
            };
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            for matcher in matchers.map_or("", |(matchers, _)| matchers).split(',') {
                let (label, value) = matcher.trim().split_once(['=', '!']).unwrap_or_default();
                let is_label = labels.iter().any(|known| known == label);
                if !is_label && !SCRAPE_LABELS.contains(&label) && !label.is_empty() {
                    problems.push(format!("{metric} has no label {label}"));
                }
                if label == "reason" {
                    problems.extend(self.unknown_reasons(value));
                }
            }
            all.extend(labels);
        }
        if metrics == 0 {
            problems.push(format!("no metric in {expression}"));
        }
        let mut grouped: BTreeSet<String> = BTreeSet::new();
        for group in expression.split("by (").skip(1) {
            let (group, _) = group.split_once(')').unwrap();
            grouped.extend(group.split(", ").map(str::to_owned));
        }
        problems.extend(
            grouped
                .difference(&all)
                .map(|name| format!("no metric has the label {name}")),
        );
        let left = if expression.contains("by (") {
            &grouped
        } else {
            &all
        };
        for name in shown.split("{{").skip(1) {
            let (name, _) = name.split_once("}}").unwrap();
            let name = name.trim().trim_start_matches("$labels.");
            if !left.contains(name) {
                problems.push(format!("the result of {expression} has no {name}"));
            }
        }
        problems
    }

    /// Unknown reasons in the value of a matcher, as in `~"token_.*|overloaded"`.
    fn unknown_reasons(&self, value: &str) -> Vec<String> {
        let value = value.trim_matches(['=', '~', '"']);
        let unknown = value.split('|').filter(|name| {
            let matches = |reason: &String| match name.strip_suffix(".*") {
                Some(start) => reason.starts_with(start),
                None => reason == name,
            };
            !name.is_empty() && !self.reasons.iter().any(matches)
        });
        unknown
            .map(|reason| format!("unknown reason {reason}"))
            .collect()
    }
}

/// Rules of `alerts.yaml`: name, expression, and the rest with labels and annotations. Reads the simple YAML of this file
/// only.
fn alerts() -> Vec<(String, String, String)> {
    let text = read(&root().join("deploy/monitoring/alerts.yaml"));
    let blocks = text.split("- alert: ").skip(1);
    let alert = |block: &str| {
        let (name, rest) = block.split_once('\n').unwrap();
        let (_, rest) = rest.split_once("expr: ").unwrap();
        let (expression, rest) = rest.split_once("labels:").unwrap();
        (name.to_owned(), expression.to_owned(), rest.to_owned())
    };
    blocks.map(alert).collect()
}

/// Every expression below a value, with its legend.
fn targets(value: &Value, found: &mut Vec<(String, String)>) {
    if let Some(expression) = value["expr"].as_str() {
        let legend = value["legendFormat"].as_str().unwrap();
        found.push((expression.to_owned(), legend.to_owned()));
    }
    let below: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for value in below {
        targets(value, found);
    }
}

#[test]
fn every_alert_uses_known_metrics_and_is_listed_in_operations() {
    let (known, alerts) = (Known::new(), alerts());
    assert!(alerts.len() > 10, "{alerts:?}");
    let explained = read(&root().join("docs/operations.md"));
    let tested = read(&root().join("deploy/monitoring/alerts.test.yaml"));
    for (name, expression, shown) in alerts {
        let problems = known.problems(&expression, &shown);
        assert!(problems.is_empty(), "{name}: {problems:#?}");
        assert!(
            explained.contains(&format!("| `{name}` |")),
            "{name} is not in docs/operations.md"
        );
        assert!(
            tested.contains(&format!("\"{name}\"")),
            "{name} has no test in alerts.test.yaml"
        );
    }
}

#[test]
fn every_dashboard_panel_uses_known_metrics() {
    let known = Known::new();
    let text = read(&root().join("deploy/monitoring/dashboard.json"));
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    targets(&dashboard["panels"], &mut found);
    assert!(found.len() > 20, "{found:?}");
    for (expression, legend) in &found {
        let problems = known.problems(expression, legend);
        assert!(problems.is_empty(), "{expression}: {problems:#?}");
    }
}

#[test]
fn reports_unknown_metrics_labels_and_reasons() {
    let known = Known::new();
    for (expression, shown, problem) in [
        (
            "rate(claimgate_request_total[5m])",
            "",
            "unknown metric claimgate_request_total",
        ),
        (
            "claimgate_keys{isuer=\"a\"}",
            "",
            "claimgate_keys has no label isuer",
        ),
        (
            "claimgate_requests_total{reason=~\"token_.*|gone\"}",
            "",
            "unknown reason gone",
        ),
        (
            "sum by (rout) (claimgate_requests_total)",
            "",
            "no metric has the label rout",
        ),
        (
            "sum by (route) (claimgate_requests_total)",
            "{{ $labels.reason }}",
            "the result of sum by (route) (claimgate_requests_total) has no reason",
        ),
        ("up == 0", "", "no metric in up == 0"),
    ] {
        assert_eq!(known.problems(expression, shown), [problem]);
    }
}
