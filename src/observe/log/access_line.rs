//! Encoding of access lines, byte for byte as `tracing-subscriber` formats an event with the same fields.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use tracing::Level;

use crate::config::LogFormat;
use crate::observe::Record;

use super::timestamp::Timestamp;
use super::{CLIENT_CLOSED_REQUEST, MAX_PATH_BYTES, printable, truncate};

const TARGET: &str = "claimgate::access";

/// Encoder of access lines. Keeps its memory between them.
#[derive(Debug, Default)]
pub(super) struct AccessLine {
    bytes: Vec<u8>,
    timestamp: Timestamp,
}

impl AccessLine {
    /// Encodes one line, with its end of line.
    pub(super) fn encode(
        &mut self,
        format: LogFormat,
        since_epoch: Duration,
        level: Level,
        record: &Record<'_>,
    ) -> &[u8] {
        let Record {
            method,
            target,
            route,
            status,
            reason,
            stage,
            cause,
            is_auth_failure: _,
            caller,
            client,
            request_id,
            elapsed,
            gate: _,
            upstream,
            request_bytes,
            response_bytes,
            complete,
            trace,
        } = *record;
        let message = match reason {
            None => "request completed",
            Some(CLIENT_CLOSED_REQUEST) if level == Level::INFO => "client closed request",
            Some(_) => "request rejected",
        };
        self.bytes.clear();
        let mut fields = Fields {
            line: &mut self.bytes,
            format,
        };
        fields.begin(&mut self.timestamp, since_epoch, level, message);
        fields.text("method", method.as_str());
        if let Some(route) = route {
            fields.text("route", &route.pattern);
        }
        let path = target.map_or("*", PathAndQuery::path);
        fields.untrusted("path", truncate(path, MAX_PATH_BYTES));
        fields.number("status", status.as_u16().into());
        if let Some(reason) = reason {
            fields.text("reason", reason);
        }
        if let Some(stage) = stage {
            fields.text("stage", stage.name());
        }
        if let Some(cause) = cause {
            fields.text("cause", cause);
        }
        if let Some(caller) = caller {
            fields.untrusted("subject", caller.subject.as_str());
            fields.text("issuer", &caller.issuer);
        }
        if let Some(client) = client {
            fields.address("client", client);
        }
        fields.millis("duration_ms", elapsed);
        if let Some(upstream) = upstream {
            fields.millis("upstream_ms", upstream);
        }
        fields.number("request_bytes", request_bytes);
        fields.number("response_bytes", response_bytes);
        fields.boolean("complete", complete);
        fields.text("request_id", request_id);
        if let Some(trace) = trace {
            fields.text("trace_id", &trace.id());
        }
        fields.end();
        &self.bytes
    }
}

/// Fields of one line.
struct Fields<'a> {
    line: &'a mut Vec<u8>,
    format: LogFormat,
}

impl Fields<'_> {
    fn begin(
        &mut self,
        timestamp: &mut Timestamp,
        since_epoch: Duration,
        level: Level,
        message: &str,
    ) {
        match self.format {
            LogFormat::Json => {
                self.push("{\"timestamp\":\"");
                timestamp.append(self.line, since_epoch);
                self.push("\",\"level\":\"");
                self.push(level.as_str());
                self.push("\",\"message\":\"");
                self.push(message);
                self.push("\"");
            }
            LogFormat::Text | LogFormat::Compact => {
                timestamp.append(self.line, since_epoch);
                // Aligned with ERROR and DEBUG.
                self.push("  ");
                self.push(level.as_str());
                self.push(" ");
                self.push(TARGET);
                self.push(": ");
                self.push(message);
            }
        }
    }

    fn end(&mut self) {
        if self.format == LogFormat::Json {
            self.push(",\"target\":\"");
            self.push(TARGET);
            self.push("\"}");
        }
        self.push("\n");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        if is_plain(text) {
            self.quoted(text);
            return;
        }
        let _infallible = match self.format {
            LogFormat::Json => serde_json::to_writer(&mut *self.line, text).is_ok(),
            LogFormat::Text | LogFormat::Compact => write!(self.line, "{text:?}").is_ok(),
        };
    }

    /// Text chosen by a client.
    fn untrusted(&mut self, name: &str, text: &str) {
        if is_plain(text) {
            self.name(name);
            self.quoted(text);
        } else {
            self.text(name, &printable(text));
        }
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        self.name(name);
        let quote = match self.format {
            LogFormat::Json => "\"",
            LogFormat::Text | LogFormat::Compact => "",
        };
        self.push(quote);
        match address {
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                self.decimal(first.into());
                for octet in rest {
                    self.push(".");
                    self.decimal(octet.into());
                }
            }
            IpAddr::V6(address) => {
                let _infallible = write!(self.line, "{address}");
            }
        }
        self.push(quote);
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.decimal(number);
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.push(if value { "true" } else { "false" });
    }

    /// Milliseconds with one to three decimals: the shortest text of the same floating-point number.
    fn millis(&mut self, name: &str, duration: Duration) {
        self.name(name);
        let whole = duration.as_secs().saturating_mul(1000);
        self.decimal(whole.saturating_add(duration.subsec_millis().into()));
        let micros = duration.subsec_micros() % 1000;
        let digits = [micros / 100, micros / 10, micros].map(|digits| b'0' + (digits % 10) as u8);
        self.push(".");
        self.line.extend_from_slice(match &digits {
            [tenths, b'0', b'0'] => std::slice::from_ref(tenths),
            [shorter @ .., b'0'] => shorter,
            all => all,
        });
    }

    fn name(&mut self, name: &str) {
        match self.format {
            LogFormat::Json => {
                self.push(",\"");
                self.push(name);
                self.push("\":");
            }
            LogFormat::Text | LogFormat::Compact => {
                self.push(" ");
                self.push(name);
                self.push("=");
            }
        }
    }

    fn quoted(&mut self, plain: &str) {
        self.push("\"");
        self.push(plain);
        self.push("\"");
    }

    fn decimal(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut length = 0;
        for digit in digits.iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
            length += 1;
            if number == 0 {
                break;
            }
        }
        let start = digits.len() - length;
        self.line.extend(digits.get(start..).unwrap_or_default());
    }

    fn push(&mut self, text: &str) {
        self.line.extend_from_slice(text.as_bytes());
    }
}

/// Returns whether a text is printable ASCII that neither format escapes.
fn is_plain(text: &str) -> bool {
    let is_escaped = |byte: &u8| !(b' '..=b'~').contains(byte) || matches!(byte, b'"' | b'\\');
    // Counted without an early end, so that the compiler compares many bytes at once.
    text.bytes().filter(is_escaped).count() == 0
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::{Arc, Mutex};
    use std::time::UNIX_EPOCH;

    use http::{Method, StatusCode};
    use tracing::{Subscriber, info, warn};
    use tracing_subscriber::fmt::format::Writer;
    use tracing_subscriber::fmt::time::FormatTime;

    use super::*;
    use crate::clock::UnixTime;
    use crate::gate::access::Rule;
    use crate::gate::caller_kind::CallerKind;
    use crate::gate::permit::KnownCaller;
    use crate::gate::refusal::Stage;
    use crate::gate::routes::Route;
    use crate::gate::subject::Subject;
    use crate::observe::log::level_of;
    use crate::observe::traces::Trace;

    const TIME: Duration = Duration::new(1_763_626_379, 527_565_999);

    struct FixedTime;

    impl FormatTime for FixedTime {
        fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
            let time = humantime::format_rfc3339_micros(UNIX_EPOCH + TIME);
            write!(writer, "{time}")
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Subscriber that formats events, as the log formats all other lines.
    fn subscriber(format: LogFormat, lines: &Lines) -> Box<dyn Subscriber + Send + Sync> {
        let lines = lines.clone();
        let formatter = tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .with_timer(FixedTime);
        match format {
            LogFormat::Json => {
                let formatter = formatter.json().flatten_event(true);
                Box::new(
                    formatter
                        .with_current_span(false)
                        .with_span_list(false)
                        .finish(),
                )
            }
            LogFormat::Text | LogFormat::Compact => {
                Box::new(formatter.with_ansi(false).compact().finish())
            }
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no duration lasts for centuries"
    )]
    fn millis(duration: Duration) -> f64 {
        duration.as_micros() as f64 / 1000.0
    }

    /// Writes the record as an event.
    fn write_event(record: &Record<'_>) {
        let path = record.target.map_or("*", PathAndQuery::path);
        let path = printable(truncate(path, MAX_PATH_BYTES));
        let subject = record
            .caller
            .map(|caller| printable(caller.subject.as_str()));
        macro_rules! event {
            ($write:ident, $text:literal) => {
                $write!(
                    target: "claimgate::access",
                    method = record.method.as_str(),
                    route = record.route.map(|route| route.pattern.as_ref()),
                    path = path.as_ref(),
                    status = record.status.as_u16(),
                    reason = record.reason,
                    stage = record.stage.map(|stage| stage.name()),
                    cause = record.cause,
                    subject = subject.as_deref(),
                    issuer = record.caller.map(|caller| caller.issuer.as_ref()),
                    client = record.client.map(tracing::field::display),
                    duration_ms = millis(record.elapsed),
                    upstream_ms = record.upstream.map(millis),
                    request_bytes = record.request_bytes,
                    response_bytes = record.response_bytes,
                    complete = record.complete,
                    request_id = record.request_id,
                    trace_id = record.trace.map(Trace::id),
                    $text
                )
            };
        }
        match (level_of(record), record.reason) {
            (Level::WARN, Some(_)) => event!(warn, "request rejected"),
            (Level::WARN, None) => event!(warn, "request completed"),
            (_, Some(CLIENT_CLOSED_REQUEST)) => event!(info, "client closed request"),
            (_, Some(_)) => event!(info, "request rejected"),
            (_, None) => event!(info, "request completed"),
        }
    }

    #[test]
    fn encodes_every_record_like_the_formatter_of_the_other_lines() {
        let texts = [
            "alice",
            "a b'c`d~",
            "quote\" and \\ backslash",
            "Zo\u{eb} \u{65e5}\u{672c} \u{1f600}",
            "a\u{202e}b\u{2066}\u{200b}",
            "e\u{301}",
        ];
        let causes = [
            "failed to connect to 127.0.0.1:3000: Connection refused (os error 111)",
            "",
            "a\r\nb\t\u{1b}[2J\0\u{8}\u{c}\u{7f}\u{9b}",
            "\u{1}\u{1f}\"\\/",
        ];
        let paths = [
            "/api/alice/tasks",
            "/a%22b\"c\\d?token=secret",
            "/\u{e9}\u{202e}",
            "*",
        ];
        let durations = [
            0,
            1,
            10,
            100,
            120,
            307,
            999,
            1000,
            1001,
            1500,
            12_000_000,
            31_536_000_123_456,
        ];
        let outcomes = [
            (200, None, None, false),
            (503, None, None, false),
            (404, Some("no_route"), Some(Stage::Route), false),
            (
                403,
                Some("subject_mismatch"),
                Some(Stage::Authorization),
                true,
            ),
            (
                502,
                Some("upstream_unreachable"),
                Some(Stage::Upstream),
                false,
            ),
            (499, Some(CLIENT_CLOSED_REQUEST), None, false),
        ];
        let clients = [
            None,
            Some(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 7))),
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        let numbers = [0, 9, 10, 12_345_678_901, u64::MAX];
        let long = format!("/{}", "\u{e9}".repeat(MAX_PATH_BYTES))
            .parse()
            .unwrap();
        let trace = Trace::sampled();
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = Lines::default();
            let mut access_line = AccessLine::default();
            let mut compared = 0;
            let mut compare = |record: &Record<'_>| {
                lines.0.lock().unwrap().clear();
                write_event(record);
                let expected = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
                let line = access_line.encode(format, TIME, level_of(record), record);
                assert_eq!(String::from_utf8(line.to_vec()).unwrap(), expected);
                compared += 1;
            };
            tracing::subscriber::with_default(subscriber(format, &lines), || {
                let mut step = 0;
                for text in texts {
                    let route = Arc::new(Route::new(text, Rule::Public));
                    let caller = KnownCaller {
                        kind: CallerKind::User,
                        subject: Subject::new(text).unwrap(),
                        issuer: text.into(),
                        expires: UnixTime(0),
                        headers: Arc::new([]),
                    };
                    for path in paths {
                        let target = path.parse().unwrap();
                        for (status, reason, stage, is_auth_failure) in outcomes {
                            for present in 0_usize..32 {
                                step += 1;
                                let has = |bit: usize| present & (1 << bit) != 0;
                                let duration = |step: usize| {
                                    Duration::from_micros(durations[step % durations.len()])
                                };
                                compare(&Record {
                                    method: &Method::POST,
                                    target: has(0).then_some(&target),
                                    route: has(1).then_some(&route),
                                    status: StatusCode::from_u16(status).unwrap(),
                                    reason,
                                    stage,
                                    cause: has(2).then_some(causes[step % causes.len()]),
                                    is_auth_failure,
                                    caller: has(3).then_some(&caller),
                                    client: clients[step % clients.len()],
                                    request_id: text,
                                    elapsed: duration(step),
                                    gate: Duration::ZERO,
                                    upstream: has(4).then(|| duration(step / 7)),
                                    request_bytes: numbers[step % numbers.len()],
                                    response_bytes: numbers[step / 3 % numbers.len()],
                                    complete: step % 2 == 0,
                                    trace: (step % 3 == 0).then_some(&trace),
                                });
                            }
                        }
                    }
                }
                compare(&Record::of("long", &long));
            });
            assert_eq!(compared, 6 * 4 * 6 * 32 + 1);
        }
    }
}
