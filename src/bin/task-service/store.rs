//! The store: users and tasks in `SQLite` or `PostgreSQL`, behind one type.
//!
//! Both databases understand `$1` and `RETURNING`, so every statement is written once.

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

/// How long a request waits for a free connection before it is told that the store is unavailable.
const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(5);
/// How long a writer of `SQLite` waits for another one.
const WAIT_FOR_WRITER: Duration = Duration::from_secs(5);
const SQLITE_CONNECTIONS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;

/// Users and tasks, wherever they are kept.
#[derive(Clone)]
pub(crate) struct Store {
    pool: Pool,
}

/// The databases there are.
#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs one statement on whichever database there is.
///
/// A statement that writes is read to its end (`fetch_all`), even where it returns one row: `SQLite`
/// commits when the statement ends, and a client that was told 201 must find its task.
macro_rules! on_pool {
    ($store:expr, $pool:ident => $statement:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite($pool) => $statement.await,
            $crate::store::Pool::Postgres($pool) => $statement.await,
        }
    };
}
use on_pool;

/// Why the store could not be opened. The text never holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("DATABASE_URL must start with sqlite:, postgres:// or postgresql://")]
    Scheme,
    #[error("DATABASE_URL is not a valid {0} URL")]
    Url(&'static str),
    #[error("the {kind} database of DATABASE_URL cannot be reached")]
    Connect {
        kind: &'static str,
        source: sqlx::Error,
    },
    #[error("the migrations of the database of DATABASE_URL failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing is wrong with the question: the database cannot be asked now.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused the statement, or answered something unexpected.
    #[error("the database failed")]
    Failed(#[source] sqlx::Error),
}

impl Store {
    /// Connects to the database of `url` and brings its tables up to date.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        let pool = match url.split_once(':') {
            Some(("sqlite", _)) => Pool::Sqlite(open_sqlite(url).await?),
            Some(("postgres" | "postgresql", _)) => Pool::Postgres(open_postgres(url).await?),
            Some(_) | None => return Err(OpenError::Scheme),
        };
        Ok(Self { pool })
    }

    /// Asks the database for nothing, to learn whether it answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        on_pool!(self, pool => sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(pool))?;
        Ok(())
    }

    /// Closes every connection, once those in use are given back, or after a while all the same.
    pub(crate) async fn close(&self) {
        let closed = on_pool!(self, pool => timeout(WAIT_FOR_CONNECTION, pool.close()));
        if closed.is_err() {
            tracing::warn!("a connection to the database was still in use at the end");
        }
    }
}

async fn open_sqlite(url: &str) -> Result<SqlitePool, OpenError> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|_| OpenError::Url("sqlite"))?
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(WAIT_FOR_WRITER)
        .journal_mode(SqliteJournalMode::Wal);

    // A database in memory lives as long as its one connection.
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
        .acquire_timeout(WAIT_FOR_CONNECTION)
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
    // The pool would try again and again and then only say that time is up: the first connection is
    // made without it, to learn the cause at once.
    let first = timeout(WAIT_FOR_CONNECTION, PgConnection::connect_with(&options));
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
        .acquire_timeout(WAIT_FOR_CONNECTION)
        .connect_lazy_with(options);
    sqlx::migrate!("src/bin/task-service/migrations/postgres")
        .run(&pool)
        .await?;
    Ok(pool)
}

impl From<sqlx::Error> for StoreError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "foreign and open: what is not known to pass is a failure"
    )]
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(ref cause) if cause.code().is_some_and(|code| passes(&code)) => {
                Self::Unavailable(error)
            }
            _ => Self::Failed(error),
        }
    }
}

/// Whether what `code` stands for goes away by itself: the classes of `PostgreSQL` for a broken
/// connection, for too many of them and for a stop or a start, and the busy file of `SQLite`.
fn passes(code: &str) -> bool {
    let class_of_postgres = code.get(..2).filter(|_| code.len() == 5);
    code == "5" || matches!(class_of_postgres, Some("08" | "53" | "57"))
}
