//! The main use case with both executables: an API without authentication, and the gate in front of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::program::{Program, keep_secret};
use super::upstream::Request;
use super::{Directory, EIGHT_LINES, eight_lines};

const TASK_SERVICE: &str = env!("CARGO_BIN_EXE_task-service");

/// `claimgate dev` with the task service behind it.
struct Dev {
    program: Program,
    address: SocketAddr,
    /// Variables for a second terminal: `GATE`, `USER_ID`, `TOKEN` and `EXPIRED`.
    variables: Vec<(String, String)>,
}

impl Dev {
    fn start(directory: &Directory) -> Self {
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--", TASK_SERVICE];
        let environment = [("BCRYPT_COST", "4")];
        let mut program = directory.claimgate_with(&arguments, &environment);
        let line = program.wait_for_line("Listening on ");
        let address = line.strip_prefix("Listening on http://").unwrap();
        let address = address.parse().unwrap();
        program.wait_for_line("401: expired");
        let file = fs::read_to_string(directory.path(".claimgate-dev.env")).unwrap();
        let variables = file.lines().map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        Self {
            program,
            address,
            variables: variables.collect(),
        }
    }

    fn variable(&self, name: &str) -> &str {
        let mut found = self.variables.iter().filter(|(known, _)| known == name);
        &found.next().unwrap().1
    }
}

#[test]
fn dev_runs_an_api_behind_the_gate() {
    let directory = Directory::with("");
    let dev = Dev::start(&directory);
    let address = dev.address;
    assert_eq!(dev.variable("GATE"), format!("http://{address}"));
    let file = fs::metadata(directory.path(".claimgate-dev.env")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);

    // The user of the printed token.
    let (user, token) = (dev.variable("USER_ID"), dev.variable("TOKEN"));
    keep_secret(token);
    assert!(dev.program.stdout.contains(token));
    let mine = Request::new("GET", format!("/api/{user}/tasks"));
    assert_eq!(
        mine.clone().bearer(token).response(address).json(),
        json!([])
    );
    let expired = keep_secret(dev.variable("EXPIRED"));
    let response = mine.clone().bearer(&expired).response(address);
    assert_eq!(
        response.assert_rejected(401, "token_expired"),
        "Token has expired. Please sign in again."
    );

    // A user of the sign-up.
    let carol = json!({ "email": "carol@example.com", "password": "correct horse" });
    let response = Request::new("POST", "/api/auth/signup")
        .json(&carol)
        .response(address);
    assert_eq!(response.status, 201, "{response:?}");
    let token = keep_secret(response.json()["token"].as_str().unwrap());
    let id = response.json()["user"]["id"].as_str().unwrap().to_owned();
    walk(address, &id, &token, user);

    dev.program.signal("TERM");
    // Both processes write to the same pipes, so the API has exited too at the end of the output.
    let ended = dev.program.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!directory.path(".claimgate-dev.env").exists());
    let waiting = "waiting for the API to listen on ";
    let line = ended.stderr.lines().find_map(|l| l.strip_prefix(waiting));
    let upstream: SocketAddr = line.unwrap().parse().unwrap();
    assert!(
        TcpStream::connect(upstream).is_err(),
        "the API is still running"
    );
}

#[test]
fn dev_prints_in_colour_on_a_terminal() {
    let directory = Directory::with("");
    let arguments = [
        "dev",
        "--color",
        "always",
        "--listen",
        "127.0.0.1:0",
        "--",
        TASK_SERVICE,
    ];
    let mut dev = directory.claimgate_with(&arguments, &[]);
    dev.wait_for_line("expired token");
    let file = fs::read_to_string(directory.path(".claimgate-dev.env")).unwrap();
    let gate = file
        .lines()
        .find_map(|line| line.strip_prefix("GATE=http://"))
        .unwrap();
    Request::new("GET", "/nothing").response(gate.parse().unwrap());
    dev.wait_for_line("\u{1b}[33m404\u{1b}[0m  GET");
    dev.signal("TERM");
    let ended = dev.wait();
    assert!(
        ended.stdout.contains("Listening on \u{1b}[36mhttp://"),
        "{ended:?}"
    );
}

#[test]
fn dev_says_where_its_api_listens_instead() {
    let directory = Directory::with("");
    // An API that ignores PORT, with a shell between it and the gate as in `npm run`.
    let api = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler); \
               print('serving', s.server_port); s.serve_forever()";
    let command = ["sh", "-c", "python3 -c \"$0\"; true", api];
    let arguments = [&["dev", "--listen", "127.0.0.1:0", "--"][..], &command].concat();
    let mut dev = directory.claimgate_with(&arguments, &[]);
    let line = dev.wait_for_line("wrong port: ");
    let (_, address) = line.split_once("the API listens on ").unwrap();
    let (address, _) = address.split_once(',').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let fix = dev.wait_for_line("fix: pass the port: ");
    assert!(fix.contains("{port}"), "{fix}");
    let other = dev.wait_for_line("or:  name the port: ");
    assert!(
        other.contains(&format!("--port {} --", address.port())),
        "{other}"
    );
    dev.signal("INT");
    let ended = dev.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains(&format!("api │ serving {}\n", address.port())),
        "{ended:?}"
    );
    assert!(
        TcpStream::connect(address).is_err(),
        "the API is still running"
    );
}

#[test]
fn other_commands_find_the_running_dev_gate() {
    let directory = Directory::with("");
    let dev = Dev::start(&directory);
    let minted = directory
        .claimgate_with(&["token", "mint", "--subject", "carol"], &[])
        .wait();
    assert_eq!(minted.code, Some(0), "{minted:?}");
    let token = keep_secret(minted.stdout.trim());
    let call = |arguments: &[&str]| directory.claimgate_with(arguments, &[]).wait();
    let inspected = call(&["token", "inspect", &token]);
    assert_eq!(inspected.code, Some(0), "{inspected:?}");
    let explained = call(&["explain", "--token", &token, "GET", "/api/alice/tasks"]);
    assert!(
        explained.stdout.contains("subject_mismatch"),
        "{explained:?}"
    );
    let refused = Request::new("GET", "/api/alice/tasks")
        .bearer(&token)
        .response(dev.address);
    let id = refused
        .fields
        .iter()
        .find_map(|field| field.strip_prefix("x-request-id: "));
    let why = call(&["why", id.unwrap()]);
    assert_eq!(why.code, Some(0), "{why:?}");
    assert!(why.stderr.contains("claimgate dev"), "{why:?}");
    let documents = Request::new("GET", "/openapi.json").response(dev.address);
    assert_eq!(documents.status, 200);
    dev.program.signal("TERM");
    let ended = dev.program.wait();
    let line = "403  GET     /api/alice/tasks";
    assert!(ended.stderr.contains(line), "{ended:?}");

    // Without a running gate, the folder's own configuration counts.
    let ended = call(&["token", "mint", "--subject", "carol"]);
    assert_ne!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn runs_two_dev_gates_at_the_same_time() {
    let (here, there) = (Directory::with(""), Directory::with(""));
    let devs = [Dev::start(&here), Dev::start(&there)];
    let [one, other] = &devs;
    let mine = Request::new("GET", "/api/alice/tasks");
    assert_eq!(
        mine.clone()
            .bearer(one.variable("TOKEN"))
            .response(one.address)
            .status,
        200
    );
    // Each has its own secret.
    mine.bearer(one.variable("TOKEN"))
        .response(other.address)
        .assert_rejected(401, "token_signature");
    for dev in devs {
        dev.program.signal("INT");
        assert_eq!(dev.program.wait().code, Some(0));
    }
}

#[test]
fn dev_stops_while_waiting_for_its_api() {
    let directory = Directory::with("");
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--"];
    let never = ["sh", "-c", "echo started; exec sleep 1000"];
    let mut dev = directory.claimgate_with(&[&arguments[..], &never].concat(), &[]);
    dev.wait_for_line("started");
    dev.signal("TERM");
    let ended = dev.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("Listening on"), "{ended:?}");
    assert!(!directory.path(".claimgate-dev.env").exists());
}

#[test]
fn dev_accepts_a_configuration_and_a_secret() {
    // Reserves the port for the API, which can still bind it: the system assigns it to no other socket.
    let kept = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    kept.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    kept.bind(&any.into()).unwrap();
    let address = kept.local_addr().unwrap().as_socket().unwrap();
    let directory = Directory::with(&eight_lines(address));
    let arguments = ["dev", "--config", "config.toml", "--", TASK_SERVICE];
    let mut dev = directory.claimgate(&arguments);
    let line = dev.wait_for_line("Listening on ");
    let gate = line.strip_prefix("Listening on http://").unwrap();
    let token = directory.token("alice", &[]);
    let response = Request::new("GET", "/api/alice/tasks")
        .bearer(&token)
        .response(gate.parse().unwrap());
    assert_eq!(response.json(), json!([]));
    dev.signal("TERM");
    assert_eq!(dev.wait().code, Some(0));
}

#[test]
fn dev_listens_on_loopback_unless_the_configuration_has_an_address() {
    for listen in ["", "[listen]\nworkers = 1\n"] {
        let config = format!("{listen}[admin]\naddress = \"127.0.0.1:0\"\n{EIGHT_LINES}");
        let directory = Directory::with(&config);
        let arguments = ["dev", "--config", "config.toml", "--", "sleep", "60"];
        let mut dev = directory.claimgate(&arguments);
        // Another program may use the port.
        let line = dev.wait_for_line(":8080");
        assert!(line.contains("127.0.0.1:8080"), "{line}");
        dev.signal("TERM");
        dev.wait();
    }
}

#[test]
fn dev_exits_with_the_code_of_its_api() {
    let directory = Directory::with("");
    let dev = |command: &[&str]| {
        let arguments = [&["dev", "--listen", "127.0.0.1:0", "--"], command].concat();
        directory.claimgate_with(&arguments, &[]).wait()
    };
    let ended = dev(&["sh", "-c", "exit 7"]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("the API exited before it listened on ")
    );
    let ended = dev(&["/no/such/api"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("failed to run `/no/such/api`: "));
    assert!(!directory.path(".claimgate-dev.env").exists());
}

#[test]
fn serves_the_task_service_with_eight_lines() {
    let api = Directory::with("");
    let environment = [
        ("BETTER_AUTH_SECRET", super::SECRET),
        ("TASK_SERVICE_ADDRESS", "127.0.0.1:0"),
    ];
    let mut service = Program::start(TASK_SERVICE, &[], &environment, api.0.path());
    let line = service.wait_for_line("listening on ");
    let (_, address) = line.split_once("listening on ").unwrap();
    let directory = Directory::with(&eight_lines(address.parse().unwrap()));
    let gate = directory.serve(&["run", "--config", "config.toml"]);

    let token = directory.token("alice", &[]);
    walk(gate.address, "alice", &token, "bob");
    let expired = directory.token("alice", &["--lifetime=-1h"]);
    let response = Request::new("GET", "/api/alice/tasks")
        .bearer(&expired)
        .response(gate.address);
    assert_eq!(
        response.assert_rejected(401, "token_expired"),
        "Token has expired. Please sign in again."
    );
    assert_eq!(gate.stop().code, Some(0));
    service.signal("TERM");
    assert_eq!(service.wait().code, Some(0));
}

/// Serves the user's own tasks. Requests for another user, and without a valid token, never reach the API.
fn walk(gate: SocketAddr, user: &str, token: &str, other: &str) {
    let tasks = format!("/api/{user}/tasks");
    let made = Request::new("POST", &tasks)
        .json(&json!({ "title": "water the plants" }))
        .bearer(token)
        .response(gate);
    assert_eq!(made.status, 201, "{made:?}");
    let titles = |response: super::upstream::Response| -> Vec<Value> {
        assert_eq!(response.status, 200, "{response:?}");
        let tasks = response.json();
        let tasks = tasks.as_array().unwrap().iter();
        tasks.map(|task| task["title"].clone()).collect()
    };
    let mine = Request::new("GET", &tasks);
    assert_eq!(
        titles(mine.clone().bearer(token).response(gate)),
        ["water the plants"]
    );

    Request::new("GET", format!("/api/{other}/tasks"))
        .bearer(token)
        .response(gate)
        .assert_rejected(403, "subject_mismatch");
    let response = mine.response(gate);
    response.assert_rejected(401, "token_missing");
    let challenge = "www-authenticate: Bearer realm=\"";
    assert!(
        response
            .fields
            .iter()
            .any(|field| field.starts_with(challenge)),
        "{response:?}"
    );
    Request::new("GET", "/nothing/here")
        .bearer(token)
        .response(gate)
        .assert_rejected(404, "no_route");

    // The task service rejects a second `X-User-Id`, so a forged header still lists the user's own tasks.
    let mut forged = mine.clone().bearer(token);
    for name in [
        "X-User-Id",
        "x-user-id",
        "X_User_Id",
        "X.User.Id",
        "X-User-ID",
    ] {
        forged = forged.header(name, other);
    }
    assert_eq!(titles(forged.response(gate)), ["water the plants"]);
}
