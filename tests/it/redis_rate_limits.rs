//! Rate limits shared over Redis: the commands, and the fallback without Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Issuer, NOW, Sidecar, Upstream, eventually, get, start};

const LIMITED: &str = r#"
[[routes]]
path = "/login"
access = "public"
rate_limit = { requests = 3, per = "1m", by = "client-address" }

[[routes]]
path = "/me/{*rest}"
access = "authenticated"
rate_limit = [
    { requests = 5, per = "1m", by = "subject" },
    { requests = 9, per = "1h", by = "subject" },
]

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

/// Reply that allows a request.
const ALLOWED: &str = "*2\r\n:0\r\n:1000000\r\n";

/// Redis server with a fixed reply to scripts; without a reply, it stays silent.
#[derive(Clone)]
struct Redis {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    reply: Option<&'static str>,
    commands: Vec<Vec<String>>,
}

impl Redis {
    fn start(reply: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let redis = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        redis.reply_with(reply);
        let serving = redis.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        redis
    }

    fn reply_with(&self, reply: Option<&'static str>) {
        self.state.lock().unwrap().reply = reply;
    }

    fn commands(&self) -> Vec<Vec<String>> {
        self.state.lock().unwrap().commands.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut requests = BufReader::new(stream.try_clone().unwrap());
        while let Some(command) = command(&mut requests) {
            let mut state = self.state.lock().unwrap();
            let name = command[0].clone();
            state.commands.push(command);
            let reply = match (state.reply, name.as_str()) {
                (None, _) => "",
                (Some(_), "PING") => "+PONG\r\n",
                (Some(_), "AUTH" | "SELECT") => "+OK\r\n",
                (Some(reply), _) => reply,
            };
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn gate(&self, lines: &str) -> (Sidecar, Upstream, Issuer) {
        let address = self.address;
        start(&format!(
            "redis = {{ url = \"redis://{address}\", {lines} }}\n{LIMITED}"
        ))
    }
}

/// Reads a command: a RESP array of bulk strings.
fn command(requests: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |requests: &mut dyn BufRead| {
        let mut line = String::new();
        requests.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    let mut command = Vec::new();
    for _ in 0..number(requests)? {
        let mut text = vec![0; number(requests)? + 2];
        requests.read_exact(&mut text).ok()?;
        text.truncate(text.len() - 2);
        command.push(String::from_utf8(text).unwrap());
    }
    Some(command)
}

fn counted(sidecar: &Sidecar, outcome: &str) -> Option<f64> {
    let series = format!("claimgate_rate_limit_redis_total{{outcome=\"{outcome}\"}}");
    sidecar.metric(&series)
}

fn logins<const N: usize>(sidecar: &Sidecar) -> [u16; N] {
    [(); N].map(|()| sidecar.call(&get("/login")).status)
}

const LONG_TIMEOUT: &str = "timeout = \"20s\"";
const SHORT_TIMEOUT: &str = "timeout = \"100ms\"";

#[test]
fn the_reply_of_redis_decides_and_sets_the_rate_limit_fields() {
    let redis = Redis::start(Some(ALLOWED));
    let (sidecar, upstream, _issuer) = redis.gate(LONG_TIMEOUT);
    let response = sidecar.call(&get("/login"));
    assert_eq!(response.status, 200);
    let left = response.header("ratelimit").unwrap();
    assert_eq!(left, "\"client-address-60s\";r=2;t=1");
    assert_eq!(logins(&sidecar), [200; 10]);
    redis.reply_with(Some("*2\r\n:1\r\n:2500000\r\n"));
    let response = sidecar.call(&get("/login"));
    response.refused(429, "rate_limited");
    assert_eq!(response.header("retry-after").as_deref(), Some("3"));
    assert_eq!(upstream.arrived().len(), 11);
    let outcomes = ["success", "failure", "skipped"].map(|outcome| counted(&sidecar, outcome));
    assert_eq!(outcomes, [Some(12.0), Some(0.0), Some(0.0)]);
}

#[test]
fn sends_the_limits_and_hashed_keys_to_redis() {
    let redis = Redis::start(Some("*3\r\n:0\r\n:1000000\r\n:1000000\r\n"));
    let (sidecar, _upstream, issuer) = redis.gate(&format!("{LONG_TIMEOUT}, prefix = \"tasks\""));
    for subject in ["alice", "bob", "alice"] {
        let response = sidecar.call(&get("/me/notes").bearer(&issuer.token(subject)));
        assert_eq!(response.status, 200);
    }
    let commands = redis.commands();
    for command in &commands {
        assert_eq!((command[0].as_str(), command[2].as_str()), ("EVALSHA", "2"));
        for name in &command[3..5] {
            assert!(name.starts_with("tasks:{"), "{name}");
            assert!(name.len() == 53 && !name.contains("alice"), "{name}");
        }
        let limits: Vec<&str> = command[5..].iter().map(String::as_str).collect();
        assert_eq!(limits, ["12000000", "60000000", "400000000", "3600000000"]);
    }
    assert_eq!(commands[0], commands[2]);
    assert_ne!(commands[0], commands[1]);
}

#[test]
fn a_request_that_waits_for_redis_looks_up_its_token_once() {
    let redis = Redis::start(Some("*3\r\n:0\r\n:1000000\r\n:1000000\r\n"));
    let (sidecar, _upstream, issuer) = redis.gate(LONG_TIMEOUT);
    let token = issuer.token("alice");
    for _ in 0..3 {
        let response = sidecar.call(&get("/me/notes").bearer(&token));
        assert_eq!(response.status, 200);
    }
    let lookups = ["hit", "miss"].map(|result| {
        let series = format!("claimgate_token_cache_lookups_total{{result=\"{result}\"}}");
        sidecar.metric(&series)
    });
    assert_eq!(lookups, [Some(2.0), Some(1.0)]);
}

#[test]
fn authenticates_and_selects_the_database() {
    let redis = Redis::start(Some(ALLOWED));
    let lines = format!("{LONG_TIMEOUT}, username = \"gate\", password_env = \"TEST_SECRET\"");
    let address = redis.address;
    let config = format!("redis = {{ url = \"redis://{address}/7\", {lines} }}\n{LIMITED}");
    let (sidecar, _upstream, _issuer) = start(&config);
    assert_eq!(logins(&sidecar), [200]);
    let commands = redis.commands();
    assert_eq!(
        commands[0],
        ["AUTH", "gate", crate::harness::issuer::SECRET]
    );
    assert_eq!(commands[1], ["SELECT", "7"]);
}

#[test]
fn a_route_without_a_limit_sends_no_command() {
    let redis = Redis::start(None);
    let (sidecar, _upstream, _issuer) = redis.gate(SHORT_TIMEOUT);
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
    }
    assert!(redis.commands().is_empty());
    assert_eq!(counted(&sidecar, "failure"), Some(0.0));
}

#[test]
fn falls_back_to_local_limits_after_one_timeout() {
    let (sidecar, _upstream, _issuer) = Redis::start(None).gate(SHORT_TIMEOUT);
    assert_eq!(logins(&sidecar), [200, 200, 200, 429, 429]);
    sidecar.set_time(NOW + 20);
    assert_eq!(logins(&sidecar), [200, 429]);
    assert_eq!(counted(&sidecar, "failure"), Some(1.0));
    assert_eq!(counted(&sidecar, "skipped"), Some(6.0));
}

#[test]
fn falls_back_to_local_limits_on_an_invalid_reply_or_an_unreachable_redis() {
    for response in [
        "*0\r\n",
        ":7\r\n",
        "*2\r\n:2\r\n:1\r\n",
        "*2\r\n:1\r\n:-1\r\n",
        "*1\r\n:0\r\n",
        "-ERR no\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (sidecar, _upstream, _issuer) = Redis::start(Some(response)).gate(LONG_TIMEOUT);
        assert_eq!(logins(&sidecar), [200, 200, 200, 429], "{response:?}");
        assert!(counted(&sidecar, "failure") >= Some(1.0), "{response:?}");
    }
    let unreachable = Upstream::unreachable();
    let url = unreachable.url().replace("http:", "redis:");
    let config = format!("redis = {{ url = \"{url}\", {LONG_TIMEOUT} }}\n{LIMITED}");
    let (sidecar, _upstream, _issuer) = start(&config);
    assert_eq!(logins(&sidecar), [200, 200, 200, 429]);
}

#[test]
fn when_unavailable_allows_or_rejects_requests() {
    let redis = Redis::start(None);
    let (sidecar, upstream, _issuer) =
        redis.gate(&format!("{SHORT_TIMEOUT}, when_unavailable = \"allow\""));
    for _ in 0..10 {
        let response = sidecar.call(&get("/login"));
        assert_eq!((response.status, response.header("ratelimit")), (200, None));
    }
    assert_eq!(upstream.arrived().len(), 10);
    let (sidecar, upstream, _issuer) =
        redis.gate(&format!("{SHORT_TIMEOUT}, when_unavailable = \"refuse\""));
    for _ in 0..3 {
        let response = sidecar.call(&get("/login"));
        response.refused(503, "rate_limit_unavailable");
        assert_eq!(response.header("retry-after").as_deref(), Some("5"));
    }
    upstream.assert_untouched();
    assert_eq!(sidecar.call(&get("/open/page")).status, 200);
}

#[test]
fn uses_redis_again_after_it_recovers() {
    let redis = Redis::start(None);
    let (sidecar, _upstream, _issuer) = redis.gate(SHORT_TIMEOUT);
    assert_eq!(logins(&sidecar), [200]);
    redis.reply_with(Some(ALLOWED));
    eventually("counted again", || {
        sidecar.call(&get("/login"));
        counted(&sidecar, "success") >= Some(1.0)
    });
}
