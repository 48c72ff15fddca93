//! Store of users and tasks in `SQLite` or `PostgreSQL`.
//!
//! Both databases support `$1` and `RETURNING`, so every statement is written once.

mod tasks;
mod users;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, PgConnection, PgPool, SqlitePool};
use tokio::time::timeout;

pub(crate) use tasks::{Task, TaskText};
pub(crate) use users::{NewUser, User};

/// Timeout for a free connection, after which the store counts as unavailable.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the write lock of `SQLite`.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const SQLITE_CONNECTIONS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;

/// Users and tasks in one database.
#[derive(Clone)]
pub(crate) struct Store {
    pool: Pool,
}

/// Connection pool of a supported database.
#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs one statement on the database.
///
/// A statement that writes is read to its end (`fetch_all`), even if it returns one row: `SQLite` commits at the end of the
/// statement, and the task must be visible after the response 201.
macro_rules! on_pool {
    ($store:expr, $pool:ident => $statement:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite($pool) => $statement.await,
            $crate::store::Pool::Postgres($pool) => $statement.await,
        }
    };
}
use on_pool;

/// Failure to open the store. The text never contains the URL, which can contain a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("DATABASE_URL must start with sqlite:, postgres:// or postgresql://")]
    Scheme,
    #[error("DATABASE_URL must be a valid {0} URL")]
    Url(&'static str),
    #[error("failed to connect to the {kind} database of DATABASE_URL")]
    Connect {
        kind: &'static str,
        source: sqlx::Error,
    },
    #[error("failed to migrate the database of DATABASE_URL")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Failure of a statement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database is temporarily unavailable.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database rejected the statement, or returned an unexpected result.
    #[error("the statement failed")]
    Failed(#[source] sqlx::Error),
}

impl Store {
    /// Connects to the database of `url` and applies the migrations.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        let pool = match url.split_once(':') {
            Some(("sqlite", _)) => Pool::Sqlite(open_sqlite(url).await?),
            Some(("postgres" | "postgresql", _)) => Pool::Postgres(open_postgres(url).await?),
            Some(_) | None => return Err(OpenError::Scheme),
        };
        Ok(Self { pool })
    }

    /// Checks the connection to the database.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        on_pool!(self, pool => sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(pool))?;
        Ok(())
    }

    /// Closes every connection. Waits for those in use up to [`CONNECTION_TIMEOUT`].
    pub(crate) async fn close(&self) {
        let closed = on_pool!(self, pool => timeout(CONNECTION_TIMEOUT, pool.close()));
        if closed.is_err() {
            tracing::warn!("a database connection was still in use at shutdown");
        }
    }
}

async fn open_sqlite(url: &str) -> Result<SqlitePool, OpenError> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|_| OpenError::Url("sqlite"))?
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(WRITE_LOCK_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal);

    // An in-memory database exists only as long as its connection.
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let pool = if in_memory {
        SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
    } else {
        SqlitePoolOptions::new().max_connections(SQLITE_CONNECTIONS)
    };
    let pool = pool
        .acquire_timeout(CONNECTION_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(|source| OpenError::Connect {
            kind: "sqlite",
            source,
        })?;
    sqlx::migrate!("src/bin/task-service/migrations/sqlite")
        .run(&pool)
        .await?;
    Ok(pool)
}

async fn open_postgres(url: &str) -> Result<PgPool, OpenError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url("postgres"))?;
    // The pool retries until its timeout and then hides the cause, so the first connection is made without it.
    let first = timeout(CONNECTION_TIMEOUT, PgConnection::connect_with(&options));
    first
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map(drop)
        .map_err(|source| OpenError::Connect {
            kind: "postgres",
            source,
        })?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(CONNECTION_TIMEOUT)
        .connect_lazy_with(options);
    sqlx::migrate!("src/bin/task-service/migrations/postgres")
        .run(&pool)
        .await?;
    Ok(pool)
}

impl From<sqlx::Error> for StoreError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "foreign and open: errors not known to be temporary are failures"
    )]
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(ref cause)
                if cause.code().is_some_and(|code| is_temporary(&code)) =>
            {
                Self::Unavailable(error)
            }
            _ => Self::Failed(error),
        }
    }
}

/// Returns true if the error of `code` is temporary: `PostgreSQL` classes 08 (connection), 53 (resources) and 57 (shutdown,
/// startup), and `SQLITE_BUSY`.
fn is_temporary(code: &str) -> bool {
    let class_of_postgres = code.get(..2).filter(|_| code.len() == 5);
    code == "5" || matches!(class_of_postgres, Some("08" | "53" | "57"))
}
