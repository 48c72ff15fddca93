//! Passwords: which are accepted, and bcrypt with a bound on how many are hashed at once.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::api::Refusal;

/// bcrypt reads no further.
const PASSWORD_BYTES: usize = 72;
const PASSWORD_CHARACTERS: usize = 8;

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    #[error(transparent)]
    Bcrypt(#[from] bcrypt::BcryptError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the thread that hashes ended early")]
    Thread(#[from] tokio::task::JoinError),
    #[error("hashing has ended")]
    Ended(#[from] tokio::sync::AcquireError),
}

/// Hashes passwords off the threads that serve, a bounded number at once.
pub(super) struct Hasher {
    cost: u32,
    free: Arc<Semaphore>,
    /// The hash of a password nobody has: compared with when there is no user.
    of_nobody: String,
}

impl Hasher {
    /// `cost` is the logarithm of the number of rounds.
    pub(super) fn new(cost: u32) -> Result<Self, HashError> {
        let mut password = [0; 32];
        getrandom::fill(&mut password)?;
        Ok(Self {
            cost,
            free: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, usize::from),
            )),
            of_nobody: bcrypt::hash(password, cost)?,
        })
    }

    pub(super) async fn hash(&self, password: String) -> Result<String, HashError> {
        let cost = self.cost;
        self.run(move || bcrypt::hash(password, cost)).await
    }

    /// Whether `hash` is of `password`. Without a hash the answer is no, and costs as much.
    pub(super) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, HashError> {
        let known = hash.is_some();
        // What could not have been a password is no password, even where bcrypt reads it as one:
        // it stops at 72 bytes, and repeats what it read with a NUL between.
        let possible = check(&password).is_ok();
        let hash = hash.unwrap_or_else(|| self.of_nobody.clone());
        let equal = self.run(move || bcrypt::verify(password, &hash)).await?;
        Ok(equal && known && possible)
    }

    /// Runs `work` once a place is free. The place is given back by the work itself, so a client
    /// that goes away early does not make room for more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, bcrypt::BcryptError> + Send + 'static,
    ) -> Result<T, HashError> {
        let place = Arc::clone(&self.free).acquire_owned().await?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        Ok(done.await??)
    }
}

/// Whether `password` is one a user may choose.
pub(super) fn check(password: &str) -> Result<(), Refusal> {
    if password.chars().count() < PASSWORD_CHARACTERS {
        return Err(Refusal::PasswordTooShort);
    }
    if password.len() > PASSWORD_BYTES {
        return Err(Refusal::PasswordTooLong);
    }
    if password.contains('\0') {
        return Err(Refusal::PasswordHasNul);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Hasher, check};

    #[test]
    fn a_password_has_8_characters_to_72_bytes_and_no_nul() {
        let cases = [
            ("1234567", false),
            ("12345678", true),
            ("ääääääää", true),
            (&"a".repeat(72), true),
            (&"a".repeat(73), false),
            (&"ä".repeat(37), false),
            ("1234\x005678", false),
        ];
        for (password, good) in cases {
            assert_eq!(check(password).is_ok(), good, "{password:?}");
        }
    }

    #[tokio::test]
    async fn only_the_very_password_is_accepted() {
        let hasher = Hasher::new(4).unwrap();
        let longest = "a".repeat(72);
        let hash = hasher.hash(longest.clone()).await.unwrap();
        let cases = [
            (longest.clone(), true),
            (format!("{longest}b"), false),
            ("a".repeat(71), false),
        ];
        for (password, good) in cases {
            let equal = hasher.verify(password.clone(), Some(hash.clone())).await;
            assert_eq!(equal.unwrap(), good, "{password:?}");
        }
    }

    #[tokio::test]
    async fn a_password_repeated_around_a_nul_is_another_password() {
        let hasher = Hasher::new(4).unwrap();
        let hash = hasher.hash("password".to_owned()).await.unwrap();
        let repeated = "password\0password".to_owned();
        assert!(!hasher.verify(repeated, Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let hasher = Hasher::new(4).unwrap();
        assert!(!hasher.verify("password".to_owned(), None).await.unwrap());
    }
}
