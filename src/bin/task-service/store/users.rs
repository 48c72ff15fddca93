//! Users of the sign-up. The table stays empty with another issuer.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Store, StoreError, on_pool};
use crate::clock::Moment;

/// Public data of a user.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct User {
    /// Random, URL-safe; the subject of the user's tokens.
    pub(crate) id: String,
    /// In lower case.
    pub(crate) email: String,
    /// Display name.
    #[schema(required)]
    pub(crate) name: Option<String>,
    /// Time of the sign-up.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Moment,
}

/// User with the password hash. Not `Serialize`, so that no response can contain the hash.
#[derive(sqlx::FromRow)]
pub(crate) struct UserWithPassword {
    #[sqlx(flatten)]
    pub(crate) user: User,
    pub(crate) password_hash: String,
}

/// User to insert.
pub(crate) struct NewUser {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: Option<String>,
    pub(crate) password_hash: String,
}

impl Store {
    /// Inserts a user; returns `None` if the email is taken. The database decides, so that exactly one of two concurrent
    /// sign-ups succeeds.
    pub(crate) async fn create_user(
        &self,
        new: &NewUser,
        now: Moment,
    ) -> Result<Option<User>, StoreError> {
        let mut created = on_pool!(self, pool => sqlx::query_as::<_, User>(
            "INSERT INTO users (id, email, name, password_hash, created_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (email) DO NOTHING
             RETURNING id, email, name, created_at",
        )
        .bind(&new.id)
        .bind(&new.email)
        .bind(&new.name)
        .bind(&new.password_hash)
        .bind(now)
        .fetch_all(pool))?;
        Ok(created.pop())
    }

    /// Finds the user of `email`, in lower case.
    pub(crate) async fn find_user_by_email(
        &self,
        email: &str,
    ) -> Result<Option<UserWithPassword>, StoreError> {
        let found = on_pool!(self, pool => sqlx::query_as::<_, UserWithPassword>(
            "SELECT id, email, name, created_at, password_hash FROM users WHERE email = $1",
        )
        .bind(email)
        .fetch_optional(pool))?;
        Ok(found)
    }

    /// Finds the user `id`.
    pub(crate) async fn find_user(&self, id: &str) -> Result<Option<User>, StoreError> {
        let found = on_pool!(self, pool => sqlx::query_as::<_, User>(
            "SELECT id, email, name, created_at FROM users WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(pool))?;
        Ok(found)
    }
}
