//! Documentation tests: README.md shows real responses, every configuration is valid, every link resolves, and the
//! reference lists every refusal, metric and log field.

mod commands;
mod monitoring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use claimgate::app::App;
use claimgate::clock::Clock;
use claimgate::config::{CONFIG_SCHEMA, ConfigDocument};
use claimgate::gate::proof_fault::ProofFault;
use claimgate::gate::refusal::Refusal;
use claimgate::gate::token_fault::TokenFault;
use http::header::WWW_AUTHENTICATE;
use jsonwebtoken::{EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const SECRET: &str = "a test secret with at least 32 bytes";

/// Fenced code block of a page.
struct Block {
    /// Info string after the opening fence, as in `sh` or `toml fragment`.
    info: String,
    text: String,
    /// Page and line, for failure messages.
    place: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The top-level pages, and every page below docs/.
fn pages() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "deploy/README.md",
        "deploy/helm/claimgate/README.md",
        "llms.txt",
        "skills/claimgate/SKILL.md",
    ];
    let mut pages: Vec<PathBuf> = top.map(|page| root().join(page)).into();
    let docs = collect(&root().join("docs"), "md");
    for folder in ["docs", "docs/reference", "docs/decisions"] {
        let folder = root().join(folder);
        let has_page = docs.iter().any(|page| page.parent() == Some(&folder));
        assert!(has_page, "{} has no pages", folder.display());
    }
    pages.extend(docs);
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
    assert_eq!(unclosed, None, "a code block has no closing fence");
    blocks
}

/// Matches `actual` against `expected`: `…` in a line matches any text, `…` alone matches any number of lines.
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
fn an_ellipsis_is_the_only_wildcard() {
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

/// Far above the duration of any step here, so only a failure reaches it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Process of this build in its own folder, with its output lines.
struct Program {
    process: Child,
    directory: TempDir,
    lines: Receiver<String>,
}

impl Program {
    /// Starts `claimgate` with `config` in `gate.toml`; reads the log with `reads_log`, otherwise standard output.
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
        let output = BufReader::new(stdout.or(stderr).unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Keep reading after the receiver is gone, so that the process never blocks on a full pipe.
                let _ = sender.send(line);
            }
        });
        Self {
            process,
            directory,
            lines,
        }
    }

    /// Waits for a line that contains `text`.
    fn wait_for(&self, text: &str) -> String {
        let mut printed = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(TIMEOUT) else {
                panic!("the process did not print `{text}`, but: {printed}");
            };
            if line.contains(text) {
                return line;
            }
            printed.push_str(&line);
            printed.push('\n');
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGTERM instead of SIGKILL, so that it stops its own child process.
        let _gone = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ended = self.process.wait();
    }
}

#[cfg(feature = "task-service")]
#[test]
fn readme_shows_real_responses() {
    let curl = Command::new("sh").args(["-c", "command -v curl"]).output();
    assert!(
        curl.unwrap().status.success(),
        "curl is missing: this test runs the commands of README.md"
    );
    let page = root().join("README.md");
    assert!(read(&page).contains("\ncargo run -- dev -- cargo run --bin task-service\n"));

    let blocks = blocks(&page);
    let mut expected = Vec::new();
    let mut script = String::new();
    let mark = "--- next block";
    for (at, block) in blocks.iter().enumerate() {
        if block.info == "sh" && block.text.contains("curl ") {
            let shown = blocks.get(at + 1).filter(|next| next.info == "text");
            let shown = shown.unwrap_or_else(|| panic!("{}: shows no response", block.place));
            script.push_str(&block.text);
            writeln!(script, "printf '\\n%s\\n' '{mark}'").unwrap();
            expected.push((block, shown));
        }
    }
    assert!(expected.len() >= 8, "README.md shows too few commands");

    let service = env!("CARGO_BIN_EXE_task-service");
    let dev = Program::start(
        &["dev", "--listen", "127.0.0.1:0", "--", service],
        "",
        false,
    );
    dev.wait_for("Listening on ");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dev.directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors, "", "a command of README.md printed an error");
    let output = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    let responses: Vec<&str> = output.split(&format!("{mark}\n")).collect();
    assert_eq!(responses.len(), expected.len() + 1, "{output}");
    for ((command, shown), real) in expected.iter().zip(responses) {
        let expected: Vec<&str> = shown.text.trim_end().lines().collect();
        let found: Vec<&str> = real.trim_end().lines().collect();
        assert!(
            shows(&expected, &found),
            "{}:\n{}returned\n{real}\ninstead of\n{}",
            shown.place,
            command.text,
            shown.text
        );
    }
}

#[test]
fn log_page_lists_every_field_of_the_access_log() {
    let gate = Program::start(&["run", "--config", "gate.toml"], GATE, true);
    let serving: Value = serde_json::from_str(&gate.wait_for("\"serving\"")).unwrap();
    let address = serving["address"].as_str().unwrap();
    // A forwarded request without a reachable upstream has every field.
    get(address, "/api/alice/tasks", &token());
    let line = gate.wait_for("claimgate::access");
    let line: Map<String, Value> = serde_json::from_str(&line).unwrap();
    let found: BTreeSet<String> = line.keys().map(|key| format!("`{key}`")).collect();

    let page = read(&root().join("docs/reference/log.md"));
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
fn every_configuration_in_the_documentation_is_valid() {
    let schema = serde_json::from_str(CONFIG_SCHEMA).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut complete = 0;
    let mut fragments = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let place = &block.place;
        if block.info.starts_with("toml") {
            let table: toml::Table = toml::from_str(&block.text).unwrap();
            let mut value = serde_json::to_value(table).unwrap();
            if block.info == "toml fragment" {
                // The keys that only a whole configuration must have.
                let members = value.as_object_mut().unwrap();
                members.entry("upstreams").or_insert_with(|| json!({}));
                members
                    .entry("routes")
                    .or_insert_with(|| json!([{ "path": "/", "access": "public" }]));
            }
            let errors: Vec<_> = schema.iter_errors(&value).collect();
            assert!(errors.is_empty(), "{place}: {errors:#?}");
        }
        let parse = || ConfigDocument::parse(Path::new(place), &block.text);
        match block.info.as_str() {
            "toml" => {
                let mut written = parse().unwrap_or_else(|problems| panic!("{problems}"));
                written.set_variable("BETTER_AUTH_SECRET", SECRET);
                App::compile(written).unwrap_or_else(|problems| panic!("{problems}"));
                complete += 1;
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
                "{place}: unknown info string `{info}`"
            ),
        }
    }
    assert!(
        complete >= 3 && fragments >= 2,
        "{complete} and {fragments}"
    );
}

#[test]
fn every_relative_link_and_its_anchor_resolve() {
    let mut links = 0;
    let mut broken = Vec::new();
    for page in pages() {
        let text = prose(&read(&page));
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let page = page.display();
            if !linked.exists() {
                broken.push(format!("{page}: {target}: no such file"));
            } else if !anchor.is_empty() && !anchors(&read(&linked)).contains(anchor) {
                broken.push(format!("{page}: {target}: no such heading"));
            }
            links += 1;
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(links > 20, "only {links} links");
}

/// Text of a page without its code blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// Anchors of a page's headings, as GitHub generates them: text in lower case without punctuation, spaces as hyphens,
/// and a number on every repeated heading.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
    for heading in prose(text).lines().filter(|line| line.starts_with('#')) {
        let words = without_link_targets(heading.trim_start_matches('#').trim()).to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = repeated.entry(slug.clone()).or_default();
        anchors.insert(match *count {
            0 => slug,
            count => format!("{slug}-{count}"),
        });
        *count += 1;
    }
    anchors
}

/// Replaces `[text](target)` with `[text]`.
fn without_link_targets(heading: &str) -> String {
    let mut parts = heading.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push(']');
        text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    text
}

#[test]
fn anchors_follow_the_rules_of_github() {
    let text = "# `[[routes]]`\n## mTLS (client certificates)\n```sh\n# no heading\n```\n## A [link](a.md#b), here\n\
                ## 0.1.0 - x_y\n### Metrics\n### Metrics\n";
    let expected = [
        "routes",
        "mtls-client-certificates",
        "a-link-here",
        "010---x_y",
        "metrics",
        "metrics-1",
    ];
    assert_eq!(anchors(text), expected.map(str::to_owned).into());
}

/// Cells of every row of every table of a page.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = read(&root().join(page));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| {
        let cells = row.trim_end_matches('|').split(" |");
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// Reasons in the source, so that the examples are complete.
fn reasons_in_the_source() -> BTreeSet<String> {
    let source = include_str!("../../src/gate/refusal.rs");
    let reasons = source.split(" reason: \"").skip(1);
    let reasons = reasons.filter_map(|rest| rest.split('"').next());
    reasons.map(str::to_owned).collect()
}

#[test]
fn responses_page_lists_every_refusal() {
    let refusals = Refusal::examples();
    let listed: BTreeSet<String> = refusals
        .iter()
        .map(|refusal| refusal.reason().into())
        .collect();
    assert_eq!(listed, reasons_in_the_source());

    let rows: Vec<Vec<String>> = rows("docs/reference/responses.md")
        .into_iter()
        .filter(|row| row.len() == 6 && row[0].starts_with('`'))
        .collect();
    let distinct: BTreeSet<_> = refusals
        .iter()
        .map(|it| (it.reason(), it.status()))
        .collect();
    assert_eq!(rows.len(), distinct.len(), "the number of rows differs");
    for refusal in refusals {
        let (status, headers, _) = refusal.response("claimgate");
        let challenge = headers
            .get(WWW_AUTHENTICATE)
            .map(|value| value.to_str().unwrap());
        let challenge = match challenge.map(|value| value.split_once("error=\"")) {
            None => String::new(),
            Some(None) => "plain".to_owned(),
            Some(Some((_, rest))) => format!("`{}`", rest.split('"').next().unwrap()),
        };
        let name = format!("`{}`", refusal.reason());
        let (status, challenge, row) = (status.as_str(), challenge.as_str(), refusal.row());
        let (stage, detail) = (row.stage.name(), row.detail);
        let describes = |cells: &Vec<String>| {
            cells[0].starts_with(&name)
                && cells[1] == status
                && cells[2] == challenge
                && cells[3].split(", ").any(|listed| listed == stage)
                && cells[4] == detail
        };
        assert!(
            rows.iter().any(describes),
            "docs/reference/responses.md has no row `| {name} | {status} | {challenge} | {stage} | {detail} |`"
        );
    }
}

#[test]
fn responses_page_lists_every_fault_of_a_token() {
    let page = include_str!("../../docs/reference/responses.md");
    let faults = TokenFault::examples();
    assert!(faults.len() > 20);
    for fault in faults {
        assert!(
            page.contains(&format!("| {fault} |")),
            "no row for: {fault}"
        );
    }
}

#[test]
fn responses_page_lists_every_fault_of_a_proof() {
    let page = include_str!("../../docs/reference/responses.md");
    let faults = ProofFault::examples();
    assert!(faults.len() > 30);
    for fault in faults {
        assert!(
            page.contains(&format!("| {fault} |")),
            "no row for: {fault}"
        );
    }
}

/// Configuration with two issuers, one of them unreachable and with sessions, and an unreachable upstream.
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
better_auth = { url = "http://127.0.0.1:1", public = "https://issuer.example", sessions = true }

[tracing]
url = "http://127.0.0.1:1"

[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"#;

/// Sends a request with a token to [`GATE`], which responds with 502.
fn get(address: &str, path: &str, token: &str) {
    let response = response(address, path, &format!("Authorization: Bearer {token}"));
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
}

/// Sends a request with a session to [`GATE`], which responds with 503: the issuer cannot be asked.
fn get_with_session(address: &str, path: &str) {
    let (token, signature) = ("a".repeat(32), "A".repeat(43));
    let cookie = format!("Cookie: better-auth.session_token={token}.{signature}=");
    let response = response(address, path, &cookie);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains("exchange_unavailable"), "{response}");
}

fn response(address: &str, path: &str, credential: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{credential}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Token with the subject `alice`.
fn token() -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "sub": "alice", "exp": 4_000_000_000_u64 });
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// TLS listener with file paths relative to the root of the repository.
const LISTENER: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
tls = { certificate = "tests/fixtures/config/tls/gate.crt", key = "tests/fixtures/keys/p256.private.pem", client_ca = "tests/fixtures/config/tls/gate.crt", client_crl = "tests/fixtures/config/tls/gate.crl" }
"#;

/// Metrics of [`GATE`] with [`LISTENER`] after a request with a token and one with a session.
fn exposition() -> String {
    let text = format!("{GATE}{LISTENER}");
    let mut written = ConfigDocument::parse(Path::new("gate.toml"), &text).unwrap();
    written.set_variable("BETTER_AUTH_SECRET", SECRET);
    let running = App::compile(written).unwrap().start(Clock::System).unwrap();
    let address = running.address().to_string();
    get(&address, "/api/alice/tasks", &token());
    get_with_session(&address, "/api/alice/tasks");
    let exposition = running.metrics().exposition().unwrap();
    running.stop();
    running.wait();
    exposition
}

#[test]
fn metrics_page_lists_every_metric_with_its_type_and_labels() {
    let exposition = exposition();
    let families: Vec<(&str, &str)> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    assert!(families.len() > 10, "{exposition}");
    let rows: Vec<Vec<String>> = rows("docs/reference/metrics.md")
        .into_iter()
        .filter(|row| row[0].starts_with("`claimgate_"))
        .collect();
    assert_eq!(rows.len(), families.len(), "the number of rows differs");
    for (family, kind) in families {
        let name = match kind {
            "counter" => format!("`{family}_total`"),
            _ => format!("`{family}`"),
        };
        let row = rows.iter().find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("docs/reference/metrics.md has no row for {name}"));
        assert_eq!(row[1], kind, "{name}");
        assert_eq!(row[2], labels(&exposition, family), "{name}");
    }
}

/// Labels of a metric family in their order, as written on the page.
fn labels(exposition: &str, family: &str) -> String {
    let sample = exposition
        .lines()
        .find(|line| line.starts_with(family))
        .unwrap_or_else(|| panic!("{family} has no sample"));
    // A label value may contain braces, such as a route.
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
fn architecture_page_names_existing_sources_and_tests() {
    let page = read(&root().join("docs/architecture.md"));
    let folders = ["src", "tests/it"].map(|folder| collect(&root().join(folder), "rs"));
    let sources = folders.concat();
    assert!(sources.len() > 50, "{sources:?}");
    let code: String = sources.iter().map(|file| read(file)).collect();
    let (mut files, mut tests) = (0, 0);
    for name in page.split('`').skip(1).step_by(2) {
        let is_source = Path::new(name).extension().is_some_and(|it| it == "rs");
        if is_source && !name.starts_with("tests/") {
            let file = name.trim_start_matches("src/");
            assert!(root().join("src").join(file).exists(), "{name} is missing");
            files += 1;
        } else if name.matches('_').count() >= 4 && !name.contains(['.', ' ', '/']) {
            assert!(
                code.contains(&format!("fn {name}(")),
                "the test {name} is missing"
            );
            tests += 1;
        }
    }
    assert!(files > 30 && tests >= 5, "{files} files and {tests} tests");
}

/// Files below a folder with this extension, in the order of their paths.
#[test]
fn the_chart_defines_every_template_of_the_documentation() {
    let after = |text: &str, start: &str| -> BTreeSet<String> {
        let parts = text.split(start).skip(1);
        let names = parts.filter_map(|part| part.split_once(['"', '`']));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    let chart = root().join("deploy/helm/claimgate");
    let defined = after(&read(&chart.join("templates/_claimgate.tpl")), "define \"");
    let listed = after(&read(&chart.join("README.md")), "\n| `claimgate.");
    let listed: BTreeSet<_> = listed.iter().map(|it| format!("claimgate.{it}")).collect();
    let internal = ["claimgate.configName", "claimgate.toml"].map(String::from);
    let public: BTreeSet<_> = defined.difference(&internal.into()).cloned().collect();
    assert_eq!(public, listed);
    let included = after(&read(&root().join("deploy/README.md")), "include \"");
    assert_eq!(included, listed);
}

fn collect(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(collect(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}
