//! `PostgreSQL` server: external or private.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use sqlx::Connection;
use tempfile::TempDir;

use super::TIMEOUT;
use super::service::{read_lines, send_signal};

/// `PostgreSQL` server for the databases of the tests.
pub(super) struct Postgres {
    /// URL of a database from which others are created.
    admin: String,
    private: Option<PrivatePostgres>,
}

/// Database of one test, dropped at its end.
pub(super) struct Database {
    admin: String,
    name: String,
    pub(super) url: String,
}

/// Server started by this test, on a Unix socket in its own directory.
struct PrivatePostgres {
    process: Child,
    directory: TempDir,
}

impl Postgres {
    pub(super) fn start() -> Result<Self, String> {
        if let Some(url) = std::env::var_os("CLAIMGATE_TEST_POSTGRES") {
            let admin = url
                .into_string()
                .map_err(|_| "CLAIMGATE_TEST_POSTGRES is not text")?;
            return Ok(Self {
                admin,
                private: None,
            });
        }
        let private = PrivatePostgres::start()?;
        let directory = private.directory.path().display();
        Ok(Self {
            admin: format!("postgres://postgres@localhost/postgres?host={directory}"),
            private: Some(private),
        })
    }

    pub(super) fn create_database(&self) -> Database {
        let name = format!("claimgate_test_{}", fastrand::u64(..));
        execute(
            &self.admin,
            &format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"),
        )
        .unwrap();
        Database {
            admin: self.admin.clone(),
            url: with_database(&self.admin, &name),
            name,
        }
    }

    /// Stops a private server; returns whether the server is private.
    pub(super) fn stop_if_private(&mut self) -> bool {
        if let Some(private) = &mut self.private {
            private.stop();
        }
        self.private.is_some()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Fails after the end of the server, together with its databases.
        let _ = execute(
            &self.admin,
            &format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
    }
}

/// Replaces the database of `url`: the part between the authority and the parameters.
fn with_database(url: &str, name: &str) -> String {
    let (base, parameters) = match url.split_once('?') {
        Some((base, parameters)) => (base, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = base.split_once("://").unwrap();
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    format!("{scheme}://{authority}/{name}{parameters}")
}

fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&mut connection).await?;
        connection.close().await
    })
}

impl PrivatePostgres {
    fn start() -> Result<Self, String> {
        let programs =
            find_postgres().ok_or("no `initdb` and `postgres` in PATH or /usr/lib/postgresql")?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let as_root = directory
            .path()
            .metadata()
            .is_ok_and(|found| found.uid() == 0);
        if as_root {
            // `postgres` does not run as root.
            run(Command::new("chown").arg("postgres").arg(directory.path()))?;
        }
        let command = |program: &str| {
            let program = programs.join(program);
            let mut command = if as_root {
                let mut command = Command::new("setpriv");
                command.args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--clear-groups",
                    "--",
                ]);
                command.arg(program);
                command
            } else {
                Command::new(program)
            };
            command.current_dir(directory.path()).stdin(Stdio::null());
            command
        };
        run(command("initdb")
            .args(["-D", "data", "-U", "postgres", "-A", "trust"])
            .args(["-E", "UTF8", "--locale=C", "--no-sync"]))?;

        // The directory is accessible only to its owner, and so is the socket.
        let mut process = command("postgres")
            .args([
                "-D",
                "data",
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-k",
            ])
            .arg(directory.path())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let lines = read_lines(process.stderr.take().ok_or("no stderr")?);
        let server = Self { process, directory };
        loop {
            let line = lines
                .recv_timeout(TIMEOUT)
                .map_err(|_| "the server did not start")?;
            if line.contains("ready to accept connections") {
                return Ok(server);
            }
        }
    }

    /// Stops the server and waits for its exit.
    fn stop(&mut self) {
        // The first line of this file is the ID of the server process, also behind `setpriv`.
        let path = self.directory.path().join("data/postmaster.pid");
        let Ok(text) = std::fs::read_to_string(path) else {
            // Not started, or already stopped: no process may remain in either case.
            let _ = self.process.kill();
            let _ = self.process.wait();
            return;
        };
        if let Some(process) = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
        {
            // Fast shutdown: closes connections without waiting for them.
            send_signal(process, "INT");
        }
        let _ = self.process.wait();
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Directory of `initdb` and `postgres`.
fn find_postgres() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort();
    let mut directories = in_path.into_iter().chain(versions.into_iter().rev());
    directories.find(|directory| {
        directory.join("initdb").is_file() && directory.join("postgres").is_file()
    })
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {text}"));
    }
    Ok(())
}
