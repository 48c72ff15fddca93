//! Last refusals with the results of their stages, for `claimgate why` and the status page.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::StatusCode;
use http::uri::PathAndQuery;

use crate::clock::UnixTime;
use crate::gate::refusal::{Refusal, Stage};
use crate::gate::verify::Issuer;

use super::Record;
use super::explanation::{self, StoppedRequest};
use super::log::{printable, truncate};

/// Page that explains every reason.
pub const RESPONSES_PAGE: &str = "docs/reference/responses.md";

/// Refusals kept by one worker.
const MAX_REFUSALS: usize = 1000;

/// Memory of the refusals kept by one worker, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Longest text chosen by a client, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Longest explanation, in bytes.
const MAX_STAGES_BYTES: usize = 2048;

/// Last refusals of one worker. Only this worker writes them, so only the admin listener contends for the lock.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    refusals: VecDeque<Arc<RefusalRecord>>,
    bytes: usize,
}

/// Rejected request. Texts are escaped for a terminal, and copied: a reference would keep the buffer of the request head
/// in memory, with its token.
#[derive(Debug)]
pub struct RefusalRecord {
    pub request_id: Box<str>,
    /// End of the exchange.
    pub at: Instant,
    pub method: Box<str>,
    /// Path without its query.
    pub path: Box<str>,
    /// Path pattern of the route.
    pub route: Option<Arc<str>>,
    /// Status of the response.
    pub status: StatusCode,
    pub reason: &'static str,
    /// Name of the stage that refused.
    pub stage: &'static str,
    /// Text of the response.
    pub detail: Cow<'static, str>,
    /// Fix, for the operator.
    pub hint: &'static str,
    /// Subject of a verified token.
    pub subject: Option<Box<str>>,
    /// Client address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// Results of the stages, one per line.
    pub stages: Box<str>,
}

impl Refusals {
    /// Adds a refusal, and drops the oldest ones above the limits. `is_permitted` is true if the gate had permitted the
    /// request before.
    pub fn push(
        &self,
        record: &Record<'_>,
        refusal: &Refusal,
        is_permitted: bool,
        issuers: &[Issuer],
    ) {
        let Record {
            method,
            target,
            route,
            status,
            reason: _,
            stage,
            cause,
            is_auth_failure: _,
            caller,
            client,
            request_id,
            elapsed: _,
            gate: _,
            upstream: _,
            request_bytes: _,
            response_bytes: _,
            complete: _,
            trace: _,
        } = record;
        let stopped = StoppedRequest {
            refusal,
            is_permitted,
            cause: *cause,
            route: route.map(Arc::as_ref),
            caller: *caller,
        };
        let mut stages = String::new();
        for result in explanation::stages(&stopped, issuers) {
            let _infallible = writeln!(stages, "{result}");
        }
        let refused = Arc::new(RefusalRecord {
            request_id: printable_start(request_id, MAX_TEXT_BYTES),
            at: Instant::now(),
            method: printable_start(method.as_str(), MAX_TEXT_BYTES),
            path: printable_start(target.map_or("*", PathAndQuery::path), MAX_TEXT_BYTES),
            route: route.map(|route| Arc::clone(&route.pattern)),
            status: *status,
            reason: refusal.reason(),
            stage: stage.map_or("", Stage::name),
            detail: refusal.detail(),
            hint: refusal.row().hint,
            subject: caller.map(|caller| printable_start(caller.subject.as_str(), MAX_TEXT_BYTES)),
            client: *client,
            stages: truncate(&stages, MAX_STAGES_BYTES).into(),
        });
        let mut recent = self.lock();
        recent.bytes += refused.bytes();
        recent.refusals.push_back(refused);
        while recent.refusals.len() > MAX_REFUSALS || recent.bytes > MAX_BYTES {
            let Some(oldest) = recent.refusals.pop_front() else {
                return;
            };
            recent.bytes -= oldest.bytes();
        }
    }

    /// Refusals with this request ID. A client may send the same ID with several requests.
    pub fn find(&self, request_id: &str) -> Vec<Arc<RefusalRecord>> {
        let recent = self.lock();
        let found = recent.refusals.iter();
        let found = found.filter(|one| *one.request_id == *request_id);
        found.map(Arc::clone).collect()
    }

    /// Last refusals, the newest first.
    pub fn last(&self, count: usize) -> Vec<Arc<RefusalRecord>> {
        let recent = self.lock();
        let newest = recent.refusals.iter().rev();
        newest.take(count).map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalRecord {
    /// End of the exchange as an RFC 3339 time.
    pub fn time(&self, now: UnixTime) -> String {
        let ago = i64::try_from(self.at.elapsed().as_secs()).unwrap_or(i64::MAX);
        let then = u64::try_from(now.0.saturating_sub(ago)).unwrap_or(0);
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(then)).to_string()
    }

    /// Multi-line explanation for a terminal.
    pub fn explain(&self, now: UnixTime) -> String {
        let Self {
            request_id: _,
            at: _,
            method,
            path,
            route: _,
            status,
            reason,
            stage: _,
            detail,
            hint,
            subject: _,
            client,
            stages,
        } = self;
        let client = client.map_or_else(|| "a Unix socket".to_owned(), |client| client.to_string());
        let time = self.time(now);
        format!(
            "{time} {method} {path} from {client}\n\n{stages}\nresponse {status}: {detail}\nfix: {hint}\nsee: \
             {RESPONSES_PAGE}, `{reason}`\n"
        )
    }

    fn bytes(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, |subject| subject.len());
        let detail = match &self.detail {
            Cow::Borrowed(_) => 0,
            Cow::Owned(detail) => detail.len(),
        };
        let texts = [&self.request_id, &self.method, &self.path, &self.stages];
        size_of::<Self>() + subject + detail + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// Truncates and escapes a text chosen by a client.
fn printable_start(text: &str, bytes: usize) -> Box<str> {
    truncate(&printable(truncate(text, bytes)), bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_refusals_within_its_limits() {
        let refusals = Refusals::default();
        let target = format!("/{}?token=secret", "x".repeat(8000));
        let target = target.parse().unwrap();
        for number in 0..3 * MAX_REFUSALS {
            let request_id = format!("{number:0128}");
            let record = Record::of(&request_id, &target);
            refusals.push(&record, &Refusal::NoRoute, false, &[]);
            let recent = refusals.lock();
            assert!(recent.refusals.len() <= MAX_REFUSALS && recent.bytes <= MAX_BYTES);
            let bytes = recent.refusals.iter().map(|one| one.bytes());
            assert_eq!(recent.bytes, bytes.sum::<usize>());
        }
        let last = refusals.last(2);
        assert_eq!(last.len(), 2);
        assert!(last[0].request_id.ends_with("2999") && last[1].request_id.ends_with("2998"));
        assert!(refusals.last(usize::MAX).len() > MAX_REFUSALS / 2);
        assert_eq!(refusals.find(&last[1].request_id).len(), 1);
        assert!(refusals.find(&format!("{:0128}", 1)).is_empty());
        assert!(!format!("{last:?}").contains("secret"));
    }

    #[test]
    fn truncates_at_character_boundaries_and_escapes_bidi_controls() {
        let refusals = Refusals::default();
        let target = format!("/{}", "é".repeat(200)).parse().unwrap();
        let record = Record::of("a", &target);
        refusals.push(&record, &Refusal::NoRoute, false, &[]);
        assert_eq!(refusals.last(1)[0].path.len(), 255);
        assert_eq!(&*printable_start("a\u{202e}b", 256), "a\\u{202e}b");
    }
}
