//! Password rules, and bcrypt with a limit on concurrent hashes.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::api::Refusal;

/// bcrypt ignores further bytes.
const PASSWORD_BYTES: usize = 72;
const PASSWORD_CHARACTERS: usize = 8;

/// Failure to hash or compare a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    #[error(transparent)]
    Bcrypt(#[from] bcrypt::BcryptError),
    #[error("no random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the hashing thread panicked")]
    Thread(#[from] tokio::task::JoinError),
    #[error("the hashing limit is closed")]
    Ended(#[from] tokio::sync::AcquireError),
}

/// Hashes passwords on blocking threads, one per CPU at a time.
pub(super) struct Hasher {
    cost: u32,
    permits: Arc<Semaphore>,
    /// Hash of a random password, compared with if there is no user.
    dummy: String,
}

impl Hasher {
    /// `cost` is the binary logarithm of the number of rounds.
    pub(super) fn new(cost: u32) -> Result<Self, HashError> {
        let mut password = [0; 32];
        getrandom::fill(&mut password)?;
        Ok(Self {
            cost,
            permits: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, usize::from),
            )),
            dummy: bcrypt::hash(password, cost)?,
        })
    }

    pub(super) async fn hash(&self, password: String) -> Result<String, HashError> {
        let cost = self.cost;
        self.run(move || bcrypt::hash(password, cost)).await
    }

    /// Returns whether `hash` is the hash of `password`. Without a hash: `false`, after the same work.
    pub(super) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, HashError> {
        let known = hash.is_some();
        // bcrypt stops at 72 bytes, and repeats a shorter password with a NUL in between, so it accepts some texts that
        // are invalid as a password.
        let is_valid = check(&password).is_ok();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let equal = self.run(move || bcrypt::verify(password, &hash)).await?;
        Ok(equal && known && is_valid)
    }

    /// Runs `work` with a permit. The work itself releases the permit, so that cancelled requests do not raise the number
    /// of concurrent hashes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, bcrypt::BcryptError> + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        Ok(done.await??)
    }
}

/// Checks the length and characters of a new password.
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
    fn accepts_8_characters_to_72_bytes_without_nul() {
        let cases = [
            ("1234567", false),
            ("12345678", true),
            ("ääääääää", true),
            (&"a".repeat(72), true),
            (&"a".repeat(73), false),
            (&"ä".repeat(37), false),
            ("1234\x005678", false),
        ];
        for (password, valid) in cases {
            assert_eq!(check(password).is_ok(), valid, "{password:?}");
        }
    }

    #[tokio::test]
    async fn accepts_only_the_exact_password() {
        let hasher = Hasher::new(4).unwrap();
        let longest = "a".repeat(72);
        let hash = hasher.hash(longest.clone()).await.unwrap();
        let cases = [
            (longest.clone(), true),
            (format!("{longest}b"), false),
            ("a".repeat(71), false),
        ];
        for (password, valid) in cases {
            let equal = hasher.verify(password.clone(), Some(hash.clone())).await;
            assert_eq!(equal.unwrap(), valid, "{password:?}");
        }
    }

    #[tokio::test]
    async fn rejects_a_password_repeated_around_a_nul() {
        let hasher = Hasher::new(4).unwrap();
        let hash = hasher.hash("password".to_owned()).await.unwrap();
        let repeated = "password\0password".to_owned();
        assert!(!hasher.verify(repeated, Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn rejects_any_password_without_a_hash() {
        let hasher = Hasher::new(4).unwrap();
        assert!(!hasher.verify("password".to_owned(), None).await.unwrap());
    }
}
