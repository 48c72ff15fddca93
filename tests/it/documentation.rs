//! The documentation: the answers in README.md are the real ones, every configuration in it can be used, and no answer
//! and no metric is missing from its page.

mod monitoring;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use claimgate::app::App;
use claimgate::clock::Clock;
use claimgate::config::CertificateField;
use claimgate::config::Written;
use claimgate::gate::pointer::Pointer;
use claimgate::gate::refusal::{Mismatch, Refusal, Unmet};
use claimgate::gate::rule::{Expected, Fact, Requirement};
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use jsonwebtoken::{EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const SECRET: &str = "a secret of the tests, 32 bytes at least";

/// A fenced block of a page.
struct Block {
    /// What stands behind the fence, as in `sh` or `toml fragment`.
    info: String,
    text: String,
    /// The page and the line, for a message.
    place: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// README.md and every page of docs/, the decisions included.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "docs/decisions"] {
        let before = pages.len();
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
        assert!(pages.len() > before, "{folder} has no pages");
    }
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in read(page).lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                open = Some(Block {
                    info: info.to_owned(),
                    text: String::new(),
                    place: format!("{}:{}", page.display(), number + 1),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    let unclosed = open.map(|block| block.place);
    assert_eq!(unclosed, None, "a block without an end");
    blocks
}

/// Whether `actual` is what `expected` shows: `…` stands for any text within a line, alone for any lines.
fn shows(expected: &[&str], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((&"…", rest)) => (0..=actual.len()).any(|skip| shows(rest, &actual[skip..])),
        Some((line, rest)) => actual
            .split_first()
            .is_some_and(|(found, others)| shows_line(line, found) && shows(rest, others)),
    }
}

fn shows_line(expected: &str, actual: &str) -> bool {
    match expected.split_once('…') {
        None => expected == actual,
        Some((start, rest)) => actual.strip_prefix(start).is_some_and(|behind| {
            let mut ends = behind
                .char_indices()
                .map(|(at, _)| at)
                .chain([behind.len()]);
            ends.any(|at| shows_line(rest, &behind[at..]))
        }),
    }
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    let actual = [
        "HTTP/1.1 200 OK",
        "via: 1.1 claimgate",
        "",
        r#"{"id":7,"a":"b"}"#,
    ];
    for expected in [
        &["HTTP/1.1 200 OK", "…", "", r#"{"id":…,"a":"b"}"#] as &[&str],
        &["…"],
        &["…", r#"{…"b"}"#],
        &["HTTP/1.1 200 OK", "via: 1.1 claimgate", "…", "", "…"],
    ] {
        assert!(shows(expected, &actual), "{expected:?}");
    }
    for expected in [
        &["HTTP/1.1 200 OK"] as &[&str],
        &["HTTP/1.1 201 Created", "…"],
        &["…", r#"{"id":…,"a":"c"}"#],
        &["…", "server: …", "…"],
    ] {
        assert!(!shows(expected, &actual), "{expected:?}");
    }
}

/// Far beyond what anything here takes: reached only when something is broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program of this build in a folder of its own, and the lines it says.
struct Program {
    process: Child,
    directory: TempDir,
    lines: Receiver<String>,
}

impl Program {
    /// Starts `claimgate` with a configuration, or nothing, in `gate.toml`; reads standard output, or else the log.
    fn start(arguments: &[&str], config: &str, reads_log: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("gate.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_claimgate"));
        command
            .args(arguments)
            .env_clear()
            .env("BCRYPT_COST", "4")
            .env("BETTER_AUTH_SECRET", SECRET)
            .current_dir(directory.path())
            .stdin(Stdio::null());
        if reads_log {
            command.stderr(Stdio::piped());
        } else {
            command.stdout(Stdio::piped());
        }
        let mut process = command.spawn().unwrap();
        let stdout = process
            .stdout
            .take()
            .map(|it| Box::new(it) as Box<dyn Read + Send>);
        let stderr = process
            .stderr
            .take()
            .map(|it| Box::new(it) as Box<dyn Read + Send>);
        let said = BufReader::new(stdout.or(stderr).unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // Read on, even when nobody listens any more.
                let _ = sender.send(line);
            }
        });
        Self {
            process,
            directory,
            lines,
        }
    }

    /// Waits for a line that has this text.
    fn wait_for(&self, text: &str) -> String {
        let mut said = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("the program did not say `{text}`, but: {said}");
            };
            if line.contains(text) {
                return line;
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Asked to stop, and not killed: it stops the program that it has started itself.
        let _gone = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ended = self.process.wait();
    }
}

#[cfg(feature = "task-service")]
#[test]
fn every_answer_that_the_readme_shows_is_the_real_one() {
    let curl = Command::new("sh").args(["-c", "command -v curl"]).output();
    assert!(
        curl.unwrap().status.success(),
        "this test runs the commands of README.md and needs curl: install it"
    );
    let page = root().join("README.md");
    assert!(read(&page).contains("\ncargo run -- dev -- cargo run --bin task-service\n"));

    let blocks = blocks(&page);
    let mut expected = Vec::new();
    let mut script = String::new();
    let mark = "--- the next block";
    for (at, block) in blocks.iter().enumerate() {
        if block.info == "sh" && block.text.contains("curl ") {
            let answer = blocks.get(at + 1).filter(|next| next.info == "text");
            let answer = answer.unwrap_or_else(|| panic!("{}: shows no answer", block.place));
            script.push_str(&block.text);
            writeln!(script, "printf '\\n%s\\n' '{mark}'").unwrap();
            expected.push((block, answer));
        }
    }
    assert!(expected.len() >= 8, "README.md shows too few commands");

    let service = env!("CARGO_BIN_EXE_task-service");
    let dev = Program::start(
        &["dev", "--listen", "127.0.0.1:0", "--", service],
        "",
        false,
    );
    dev.wait_for("The gate is open: ");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dev.directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors, "", "a command of README.md complained");
    let output = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    let answers: Vec<&str> = output.split(&format!("{mark}\n")).collect();
    assert_eq!(answers.len(), expected.len() + 1, "{output}");
    for ((command, answer), real) in expected.iter().zip(answers) {
        let wanted: Vec<&str> = answer.text.trim_end().lines().collect();
        let found: Vec<&str> = real.trim_end().lines().collect();
        assert!(
            shows(&wanted, &found),
            "{}:\n{}was answered\n{real}\nand not\n{}",
            answer.place,
            command.text,
            answer.text
        );
    }
}

#[test]
fn every_field_of_the_access_line_is_described() {
    let gate = Program::start(&["run", "--config", "gate.toml"], GATE, true);
    let serving: Value = serde_json::from_str(&gate.wait_for("\"serving\"")).unwrap();
    let address = serving["address"].as_str().unwrap();
    // A request that is permitted and fails on the way has every field.
    get(address, "/api/alice/tasks", &token());
    let line = gate.wait_for("claimgate::access");
    let line: Map<String, Value> = serde_json::from_str(&line).unwrap();
    let found: BTreeSet<String> = line.keys().map(|key| format!("`{key}`")).collect();

    let page = read(&root().join("docs/log.md"));
    let (_, table) = page.split_once("| field |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| "));
    let described: BTreeSet<String> = rows
        .filter_map(|row| row.split(" |").next())
        .filter(|cell| cell.starts_with('`'))
        .map(str::to_owned)
        .collect();
    assert_eq!(found, described);
}

#[test]
fn every_configuration_in_the_documentation_can_be_used() {
    let mut whole = 0;
    let mut fragments = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let place = &block.place;
        let parse = || Written::parse(Path::new(place), &block.text);
        match block.info.as_str() {
            "toml" => {
                let mut written = parse().unwrap_or_else(|problems| panic!("{problems}"));
                written.set_variable("BETTER_AUTH_SECRET", SECRET);
                App::compile(written).unwrap_or_else(|problems| panic!("{problems}"));
                whole += 1;
            }
            "toml fragment" => {
                let written = parse().unwrap_or_else(|problems| panic!("{problems}"));
                written
                    .finish()
                    .unwrap_or_else(|problems| panic!("{problems}"));
                fragments += 1;
            }
            info => assert!(
                !info.starts_with("toml"),
                "{place}: `{info}` is not known here"
            ),
        }
    }
    assert!(whole >= 3 && fragments >= 2, "{whole} and {fragments}");
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let place = page.display();
            assert!(linked.exists(), "{place}: there is no {target}");
            let found = anchor.is_empty() || anchors(&read(&linked)).contains(anchor);
            assert!(found, "{place}: {target} is not a heading");
            links += 1;
        }
    }
    assert!(links > 20, "there are only {links} links");
}

/// The headings of a page, as links name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The cells of every row of every table.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = read(&root().join(page));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| {
        let cells = row.trim_end_matches('|').split(" |");
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

fn every_refusal() -> Vec<Refusal> {
    vec![
        Refusal::PathNotCanonical,
        Refusal::RequestMalformed,
        Refusal::NoRoute,
        Refusal::HttpsRequired(HeaderValue::from_static("https://gate.test/")),
        Refusal::MethodNotAllowed(HeaderValue::from_static("GET")),
        Refusal::TokenMissing,
        Refusal::TokenRepeated,
        Refusal::TokenMalformed,
        Refusal::TokenOpaque,
        Refusal::TokenSignature,
        Refusal::TokenAlgorithm,
        Refusal::TokenKeyUnknown,
        Refusal::TokenExpired,
        Refusal::TokenNotYetValid,
        Refusal::TokenLifetime,
        Refusal::TokenIssuer,
        Refusal::TokenAudience,
        Refusal::TokenSubject,
        Refusal::TokenType,
        Refusal::TokenConfirmation,
        Refusal::SubjectMismatch(Mismatch::Forbidden),
        Refusal::SubjectMismatch(Mismatch::NotFound),
        Refusal::SubjectMismatch(Mismatch::Unauthorized),
        Refusal::ClaimMissing(Unmet {
            requirement: Arc::new(Requirement {
                fact: Fact::Claim(Pointer::parse("scope").unwrap()),
                expected: Expected::Has("tasks".to_owned()),
            }),
            scope: Some("tasks".into()),
        }),
        Refusal::CertificateMissing(Arc::new(Requirement {
            fact: Fact::Certificate(CertificateField::Dns),
            expected: Expected::Has("web.example".to_owned()),
        })),
        Refusal::OriginNotAllowed,
        Refusal::PreflightOrigin,
        Refusal::PreflightMethod,
        Refusal::PreflightHeaders,
        Refusal::RateLimited(60),
        Refusal::RequestTimeout,
        Refusal::BodyTooLarge,
        Refusal::TargetTooLong,
        Refusal::HeadersTooLarge,
        Refusal::KeysUnavailable,
        Refusal::RatesUnavailable,
        Refusal::Overloaded,
        Refusal::Draining,
        Refusal::UpstreamUnreachable,
        Refusal::UpstreamBroken,
        Refusal::UpstreamTimeout,
    ]
}

/// The reasons in the source, so that the list above cannot miss one.
fn reasons_in_the_source() -> BTreeSet<String> {
    let source = include_str!("../../src/gate/refusal.rs");
    let (_, rest) = source.split_once("pub fn reason(").unwrap();
    let (table, _) = rest.split_once("pub fn status(").unwrap();
    let reasons = table.split("=> \"").skip(1);
    let reasons = reasons.filter_map(|rest| rest.split('"').next());
    reasons.map(str::to_owned).collect()
}

#[test]
fn every_refusal_has_its_row_in_the_table_of_answers() {
    let refusals = every_refusal();
    let listed: BTreeSet<String> = refusals
        .iter()
        .map(|refusal| refusal.reason().into())
        .collect();
    assert_eq!(listed, reasons_in_the_source());

    let rows: Vec<Vec<String>> = rows("docs/answers.md")
        .into_iter()
        .filter(|row| row[0].starts_with('`'))
        .collect();
    assert_eq!(rows.len(), refusals.len(), "a row too many or too few");
    for refusal in refusals {
        let (status, headers, _) = refusal.answer("claimgate");
        let challenge = headers
            .get(WWW_AUTHENTICATE)
            .map(|value| value.to_str().unwrap());
        let challenge = match challenge.map(|value| value.split_once("error=\"")) {
            None => String::new(),
            Some(None) => "plain".to_owned(),
            Some(Some((_, rest))) => format!("`{}`", rest.split('"').next().unwrap()),
        };
        let name = format!("`{}`", refusal.reason());
        let row = [status.as_str(), challenge.as_str(), refusal.detail()];
        assert!(
            rows.iter()
                .any(|cells| cells[0].starts_with(&name) && cells[1..4] == row),
            "docs/answers.md has no row `| {name} | {} |`",
            row.join(" | ")
        );
    }
}

/// A gate of two issuers, one of which cannot be reached, before an upstream that is not there.
const GATE: &str = r#"
[listen]
address = "127.0.0.1:0"
workers = 1

[admin]
address = "127.0.0.1:0"

[upstreams.nothing]
url = "unix:/does/not/exist"
health_check = { path = "/health" }

[issuers.local]
keys = { secret_env = "BETTER_AUTH_SECRET" }

[issuers.remote]
keys = { jwks_url = "http://127.0.0.1:1/jwks" }
issuer = "https://issuer.example"

[tracing]
url = "http://127.0.0.1:1"

[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"#;

/// Asks [`GATE`] for a path of an owner.
fn get(address: &str, path: &str, token: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// A token for `alice`.
fn token() -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "sub": "alice", "exp": 4_000_000_000_u64 });
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// A listener with TLS, whose files are named from the top of the repository.
const LISTENER: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
tls = { certificate = "tests/fixtures/config/tls/gate.crt", key = "tests/fixtures/keys/p256.private.pem", client_ca = "tests/fixtures/config/tls/gate.crt", client_crl = "tests/fixtures/config/tls/gate.crl" }
"#;

/// What [`GATE`] with [`LISTENER`] counts after a request.
fn exposition() -> String {
    let text = format!("{GATE}{LISTENER}");
    let mut written = Written::parse(Path::new("gate.toml"), &text).unwrap();
    written.set_variable("BETTER_AUTH_SECRET", SECRET);
    let running = App::compile(written).unwrap().start(Clock::System).unwrap();
    get(&running.address().to_string(), "/api/alice/tasks", &token());
    let exposition = running.metrics().exposition().unwrap();
    running.stop();
    running.wait();
    exposition
}

#[test]
fn every_metric_is_described_with_its_type_and_labels() {
    let exposition = exposition();
    let families: Vec<(&str, &str)> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    assert!(families.len() > 10, "{exposition}");
    let rows: Vec<Vec<String>> = rows("docs/metrics.md")
        .into_iter()
        .filter(|row| row[0].starts_with("`claimgate_"))
        .collect();
    assert_eq!(rows.len(), families.len(), "a row too many or too few");
    for (family, kind) in families {
        let name = match kind {
            "counter" => format!("`{family}_total`"),
            _ => format!("`{family}`"),
        };
        let row = rows.iter().find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {name}"));
        assert_eq!(row[1], kind, "{name}");
        assert_eq!(row[2], labels(&exposition, family), "{name}");
    }
}

/// The labels of a family in their order, as the page writes them.
fn labels(exposition: &str, family: &str) -> String {
    let sample = exposition
        .lines()
        .find(|line| line.starts_with(family))
        .unwrap_or_else(|| panic!("{family} has no sample"));
    // A value may have braces of its own, as a route has.
    let Some((_, rest)) = sample.split_once('{') else {
        return String::new();
    };
    let (pairs, _) = rest.rsplit_once('}').unwrap();
    let names = pairs.split("\",").filter_map(|pair| pair.split_once("=\""));
    let names = names.map(|(name, _)| name).filter(|name| *name != "le");
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn every_source_and_test_that_the_architecture_names_exists() {
    let page = read(&root().join("docs/ARCHITECTURE.md"));
    let mut sources = Vec::new();
    for folder in ["src", "tests/it"] {
        collect(&root().join(folder), &mut sources);
    }
    assert!(sources.len() > 50, "{sources:?}");
    let code: String = sources.iter().map(|file| read(file)).collect();
    let (mut files, mut tests) = (0, 0);
    for name in page.split('`').skip(1).step_by(2) {
        let is_source = Path::new(name).extension().is_some_and(|it| it == "rs");
        if is_source && !name.starts_with("tests/") {
            let file = name.trim_start_matches("src/");
            assert!(root().join("src").join(file).exists(), "there is no {name}");
            files += 1;
        } else if name.matches('_').count() >= 4 && !name.contains(['.', ' ', '/']) {
            assert!(
                code.contains(&format!("fn {name}(")),
                "there is no test {name}"
            );
            tests += 1;
        }
    }
    assert!(files > 30 && tests >= 5, "{files} files and {tests} tests");
}

/// Every Rust file under a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
