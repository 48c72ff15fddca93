//! The last requests that were not served, with what each check has said: for `claimgate why`.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::clock::UnixTime;
use crate::gate::refusal::Refusal;
use crate::gate::verify::Issuer;

use super::Record;
use super::explanation::{self, StoppedRequest};
use super::log::{printable, up_to};

/// How many one worker remembers.
const MAX_REFUSALS: usize = 1000;

/// The most memory that those of one worker take, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// The longest text of a client that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The longest explanation that is kept, in bytes.
const MAX_STAGES_BYTES: usize = 2048;

/// What one worker remembers. Only its worker writes it, so that the lock is free but for a question.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<Arc<RefusalRecord>>,
    bytes: usize,
}

/// A request that was not served. Every text is a copy, or it would keep the whole head that it was in, with its token;
/// and is fit for a terminal.
#[derive(Debug)]
pub struct RefusalRecord {
    /// The name of the request.
    pub request_id: Box<str>,
    /// When it was over.
    pub at: Instant,
    /// The method.
    pub method: Box<str>,
    /// The path, without its query.
    pub path: Box<str>,
    /// The path of the route, as configured.
    pub route: Option<Arc<str>>,
    /// The status of the answer.
    pub status: u16,
    /// Why.
    pub reason: &'static str,
    /// The text of the answer.
    pub detail: &'static str,
    /// Who the token is about, if it was good.
    pub subject: Option<Box<str>>,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// Results of the stages, one per line.
    pub stages: Box<str>,
}

impl Refusals {
    /// Remembers one, and forgets the oldest if there are too many.
    pub fn keep(&self, record: &Record, refusal: &Refusal, is_permitted: bool, issuers: &[Issuer]) {
        let Record {
            method,
            target,
            route,
            status,
            reason: _,
            cause,
            is_auth_failure: _,
            subject,
            issuer,
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
            cause: cause.as_deref(),
            route: route.as_deref(),
            subject: subject.as_ref(),
            issuer: issuer.as_deref(),
        };
        let mut stages = String::new();
        for result in explanation::stages(&stopped, issuers) {
            let _infallible = writeln!(stages, "{result}");
        }
        let remembered = Arc::new(RefusalRecord {
            request_id: start_of(request_id.to_str().unwrap_or_default(), MAX_TEXT_BYTES),
            at: Instant::now(),
            method: start_of(method.as_str(), MAX_TEXT_BYTES),
            path: start_of(
                target.as_ref().map_or("*", |target| target.path()),
                MAX_TEXT_BYTES,
            ),
            route: route.as_ref().map(|route| Arc::clone(&route.pattern)),
            status: status.as_u16(),
            reason: refusal.reason(),
            detail: refusal.detail(),
            subject: subject
                .as_ref()
                .map(|subject| start_of(subject.as_str(), MAX_TEXT_BYTES)),
            client: *client,
            stages: up_to(&stages, MAX_STAGES_BYTES).into(),
        });
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += remembered.bytes();
        kept.last.push_back(remembered);
        while kept.last.len() > MAX_REFUSALS || kept.bytes > MAX_BYTES {
            let Some(forgotten) = kept.last.pop_front() else {
                return;
            };
            kept.bytes -= forgotten.bytes();
        }
    }

    /// Those of this name: a client may give the same to several.
    pub fn find(&self, request_id: &str) -> Vec<Arc<RefusalRecord>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.last.iter();
        let found = found.filter(|one| *one.request_id == *request_id);
        found.map(Arc::clone).collect()
    }

    /// The last of them.
    pub fn last(&self, count: usize) -> Vec<Arc<RefusalRecord>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last.iter().rev().take(count).map(Arc::clone).collect()
    }
}

impl RefusalRecord {
    /// When it was over, by the clock on the wall.
    pub fn time(&self, now: UnixTime) -> String {
        let ago = i64::try_from(self.at.elapsed().as_secs()).unwrap_or(i64::MAX);
        let then = u64::try_from(now.0.saturating_sub(ago)).unwrap_or(0);
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(then)).to_string()
    }

    /// All of it, for people.
    pub fn explain(&self, now: UnixTime) -> String {
        let Self {
            request_id: _,
            at: _,
            method,
            path,
            route: _,
            status,
            reason: _,
            detail,
            subject: _,
            client,
            stages,
        } = self;
        let client = client.map_or_else(|| "a Unix socket".to_owned(), |client| client.to_string());
        let time = self.time(now);
        format!("{time} {method} {path} from {client}\n\n{stages}\nresponse {status}: {detail}\n")
    }

    fn bytes(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, |subject| subject.len());
        let texts = [&self.request_id, &self.method, &self.path, &self.stages];
        size_of::<Self>() + subject + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// The start of a client's text, fit for a terminal.
fn start_of(text: &str, bytes: usize) -> Box<str> {
    up_to(&printable(up_to(text, bytes)), bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered_and_never_too_many() {
        let refusals = Refusals::default();
        let path = format!("/{}?token=secret", "x".repeat(8000));
        for number in 0..3 * MAX_REFUSALS {
            let record = Record::of(&format!("{number:0128}"), &path);
            refusals.keep(&record, &Refusal::NoRoute, false, &[]);
            let kept = refusals.0.lock().unwrap();
            assert!(kept.last.len() <= MAX_REFUSALS && kept.bytes <= MAX_BYTES);
            let bytes = kept.last.iter().map(|one| one.bytes());
            assert_eq!(kept.bytes, bytes.sum::<usize>());
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
    fn no_character_is_cut_and_none_turns_the_line() {
        let refusals = Refusals::default();
        let record = Record::of("a", &format!("/{}", "é".repeat(200)));
        refusals.keep(&record, &Refusal::NoRoute, false, &[]);
        assert_eq!(refusals.last(1)[0].path.len(), 255);
        assert_eq!(&*start_of("a\u{202e}b", 256), "a\\u{202e}b");
    }
}
