//! Compiles `[tracing]`.

use std::sync::Arc;

use http::Uri;

use crate::config::{ConfigDocument, KeyPath};
use crate::observe::traces::Tracing;
use crate::tls;

use super::checks::check_share;
use super::urls::{self, UrlKind};

/// Path of the traces endpoint (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
const TRACES_PATH: &str = "/v1/traces";

const COLLECTOR_URL: UrlKind = UrlKind {
    example: "http://127.0.0.1:4318",
    risk: "would send paths and subjects to another machine without TLS, where an attacker on the network could read them",
};

pub(super) fn compile(document: &mut ConfigDocument) -> Option<Arc<Tracing>> {
    let tracing = document.config.tracing.clone()?;
    let section = KeyPath::of("tracing");
    check_share(document, section.key("sample"), tracing.sample);
    if tracing.service_name.trim().is_empty() {
        document.report(section.key("service_name"), "must not be empty");
    }
    let path = section.key("url");
    let url = urls::parse(
        document,
        &path,
        &tracing.url,
        tracing.allow_http,
        &COLLECTOR_URL,
    )?;
    if url.query().is_some() {
        document.report(path, "must not have a query");
        return None;
    }
    if url.scheme_str() == Some("http") && tracing.ca_file.is_some() {
        document.report(section.key("ca_file"), "has no effect without `https://`");
        return None;
    }
    let tls = tls::client::client_config(tracing.ca_file.as_deref());
    let tls = tls.map_err(|error| document.report(section.key("ca_file"), error.to_string()));
    Some(Arc::new(Tracing {
        url: traces_url(&url)?,
        tls: tls.ok()?,
        service_name: tracing.service_name,
        sample: tracing.sample,
        restart: tracing.restart,
    }))
}

/// Traces endpoint of a collector.
fn traces_url(url: &Uri) -> Option<Uri> {
    let path = url.path().trim_end_matches('/');
    let target = format!("{path}{TRACES_PATH}");
    let mut parts = url.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    Uri::from_parts(parts).ok()
}
