//! task-service: the sample API behind the gate, for the documentation and the tests.
//!
//! It takes its user only from the `X-User-Id` header and filters every query by it. It also offers sign-up and sign-in
//! and issues tokens, so that a first run needs no other issuer.
//!
//! - [`settings`]: flags and environment
//! - [`serve`]: listener and graceful shutdown
//! - [`api`]: router, task operations, errors
//! - [`auth`]: sign-up, sign-in, passwords and tokens
//! - [`store`]: `SQLite` or `PostgreSQL`

mod api;
mod auth;
mod clock;
mod serve;
mod settings;
mod store;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use auth::{Auth, AuthError};
use settings::Settings;
use store::Store;

/// Failure of the service.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Secret(#[from] settings::SecretError),
    #[error("{variable} is invalid")]
    Auth {
        variable: &'static str,
        source: AuthError,
    },
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), RunError> {
    let secret = settings.secret()?;
    let auth = Auth::new(
        &secret.bytes,
        settings.jwt_expiration_days,
        settings.bcrypt_cost,
    )
    .map_err(|source| RunError::Auth {
        variable: secret.variable,
        source,
    })?;
    let store = Store::open(&settings.database_url).await?;
    let router = api::router(api::Service {
        store: store.clone(),
        auth,
    });
    let served = serve::run(router, settings.address()).await;
    store.close().await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// Error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries already include the cause in their own text.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
