//! Rate limits that several gates share: what Redis is asked, and what becomes of requests without it.

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

/// Every request is counted.
const NONE: &str = "*2\r\n:0\r\n:1000000\r\n";

/// Something at a port that answers commands of Redis as it is told; without an answer, it says nothing.
#[derive(Clone)]
struct Redis {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    answer: Option<&'static str>,
    commands: Vec<Vec<String>>,
}

impl Redis {
    fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let redis = Self {
            address: listener.local_addr().unwrap(),
            told: Arc::default(),
        };
        redis.answer(answer);
        let serving = redis.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        redis
    }

    fn answer(&self, answer: Option<&'static str>) {
        self.told.lock().unwrap().answer = answer;
    }

    fn commands(&self) -> Vec<Vec<String>> {
        self.told.lock().unwrap().commands.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut requests = BufReader::new(stream.try_clone().unwrap());
        while let Some(command) = command(&mut requests) {
            let mut told = self.told.lock().unwrap();
            let name = command[0].clone();
            told.commands.push(command);
            let answer = match (told.answer, name.as_str()) {
                (None, _) => "",
                (Some(_), "PING") => "+PONG\r\n",
                (Some(_), "AUTH" | "SELECT") => "+OK\r\n",
                (Some(answer), _) => answer,
            };
            if stream.write_all(answer.as_bytes()).is_err() {
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

/// One command: a list of texts, each with its length before it.
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

fn asked(sidecar: &Sidecar, outcome: &str) -> Option<f64> {
    let series = format!("claimgate_rate_limit_redis_total{{outcome=\"{outcome}\"}}");
    sidecar.metric(&series)
}

fn logins<const N: usize>(sidecar: &Sidecar) -> [u16; N] {
    [(); N].map(|()| sidecar.call(&get("/login")).status)
}

const PATIENT: &str = "timeout = \"20s\"";
const IMPATIENT: &str = "timeout = \"100ms\"";

#[test]
fn redis_decides_and_the_client_is_told_what_it_said() {
    let redis = Redis::start(Some(NONE));
    let (sidecar, upstream, _issuer) = redis.gate(PATIENT);
    let answer = sidecar.call(&get("/login"));
    assert_eq!(answer.status, 200);
    let told = answer.header("ratelimit").unwrap();
    assert_eq!(told, "\"client-address-60s\";r=2;t=1");
    assert_eq!(logins(&sidecar), [200; 10]);
    redis.answer(Some("*2\r\n:1\r\n:2500000\r\n"));
    let answer = sidecar.call(&get("/login"));
    answer.refused(429, "rate_limited");
    assert_eq!(answer.header("retry-after").as_deref(), Some("3"));
    assert_eq!(upstream.arrived().len(), 11);
    let outcomes = ["success", "failure", "skipped"].map(|outcome| asked(&sidecar, outcome));
    assert_eq!(outcomes, [Some(12.0), Some(0.0), Some(0.0)]);
}

#[test]
fn redis_learns_the_limits_and_nothing_of_who_calls() {
    let redis = Redis::start(Some("*3\r\n:0\r\n:1000000\r\n:1000000\r\n"));
    let (sidecar, _upstream, issuer) = redis.gate(&format!("{PATIENT}, prefix = \"tasks\""));
    for subject in ["alice", "bob", "alice"] {
        let answer = sidecar.call(&get("/me/notes").bearer(&issuer.token(subject)));
        assert_eq!(answer.status, 200);
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
fn a_request_that_waits_for_redis_looks_for_its_token_once() {
    let redis = Redis::start(Some("*3\r\n:0\r\n:1000000\r\n:1000000\r\n"));
    let (sidecar, _upstream, issuer) = redis.gate(PATIENT);
    let token = issuer.token("alice");
    for _ in 0..3 {
        let answer = sidecar.call(&get("/me/notes").bearer(&token));
        assert_eq!(answer.status, 200);
    }
    let looked = ["hit", "miss"].map(|result| {
        let series = format!("claimgate_token_cache_lookups_total{{result=\"{result}\"}}");
        sidecar.metric(&series)
    });
    assert_eq!(looked, [Some(2.0), Some(1.0)]);
}

#[test]
fn the_password_is_sent_and_the_database_chosen() {
    let redis = Redis::start(Some(NONE));
    let lines = format!("{PATIENT}, username = \"gate\", password_env = \"TEST_SECRET\"");
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
fn without_a_limit_redis_is_not_asked() {
    let redis = Redis::start(None);
    let (sidecar, _upstream, _issuer) = redis.gate(IMPATIENT);
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
    }
    assert!(redis.commands().is_empty());
    assert_eq!(asked(&sidecar, "failure"), Some(0.0));
}

#[test]
fn one_request_waits_for_a_silent_redis_and_the_gate_counts_for_itself() {
    let (sidecar, _upstream, _issuer) = Redis::start(None).gate(IMPATIENT);
    assert_eq!(logins(&sidecar), [200, 200, 200, 429, 429]);
    sidecar.set_time(NOW + 20);
    assert_eq!(logins(&sidecar), [200, 429]);
    assert_eq!(asked(&sidecar, "failure"), Some(1.0));
    assert_eq!(asked(&sidecar, "skipped"), Some(6.0));
}

#[test]
fn a_redis_that_is_not_there_or_makes_no_sense_is_no_redis() {
    for answer in [
        "*0\r\n",
        ":7\r\n",
        "*2\r\n:2\r\n:1\r\n",
        "*2\r\n:1\r\n:-1\r\n",
        "*1\r\n:0\r\n",
        "-ERR no\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (sidecar, _upstream, _issuer) = Redis::start(Some(answer)).gate(PATIENT);
        assert_eq!(logins(&sidecar), [200, 200, 200, 429], "{answer:?}");
        assert!(asked(&sidecar, "failure") >= Some(1.0), "{answer:?}");
    }
    let nobody = Upstream::nowhere();
    let url = nobody.url().replace("http:", "redis:");
    let config = format!("redis = {{ url = \"{url}\", {PATIENT} }}\n{LIMITED}");
    let (sidecar, _upstream, _issuer) = start(&config);
    assert_eq!(logins(&sidecar), [200, 200, 200, 429]);
}

#[test]
fn what_becomes_of_requests_without_redis_can_be_said() {
    let redis = Redis::start(None);
    let (sidecar, upstream, _issuer) =
        redis.gate(&format!("{IMPATIENT}, when_unavailable = \"allow\""));
    for _ in 0..10 {
        let answer = sidecar.call(&get("/login"));
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
    assert_eq!(upstream.arrived().len(), 10);
    let (sidecar, upstream, _issuer) =
        redis.gate(&format!("{IMPATIENT}, when_unavailable = \"refuse\""));
    for _ in 0..3 {
        let answer = sidecar.call(&get("/login"));
        answer.refused(503, "rate_limit_unavailable");
        assert_eq!(answer.header("retry-after").as_deref(), Some("5"));
    }
    upstream.untouched();
    assert_eq!(sidecar.call(&get("/open/page")).status, 200);
}

#[test]
fn a_redis_that_has_come_back_is_asked_again() {
    let redis = Redis::start(None);
    let (sidecar, _upstream, _issuer) = redis.gate(IMPATIENT);
    assert_eq!(logins(&sidecar), [200]);
    redis.answer(Some(NONE));
    eventually("asked again", || {
        sidecar.call(&get("/login"));
        asked(&sidecar, "success") >= Some(1.0)
    });
}
