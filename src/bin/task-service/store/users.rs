//! The users who signed up here. With another issuer in front, this table stays empty.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Store, StoreError, on_pool};
use crate::clock::Moment;

/// A user, as the world may see one.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct User {
    /// Random, safe in a URL; the subject of the user's tokens.
    pub(crate) id: String,
    /// In lower case.
    pub(crate) email: String,
    /// How the user wants to be called.
    #[schema(required)]
    pub(crate) name: Option<String>,
    /// When the user signed up.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Moment,
}

/// A user together with the hash of the password. It has no `Serialize`: the hash stays here.
#[derive(sqlx::FromRow)]
pub(crate) struct UserWithPassword {
    #[sqlx(flatten)]
    pub(crate) user: User,
    pub(crate) password_hash: String,
}

/// A user who is about to be added.
pub(crate) struct NewUser {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: Option<String>,
    pub(crate) password_hash: String,
}

impl Store {
    /// Adds a user, or nothing when the email is taken. The database decides, so that of two
    /// sign-ups at the same moment exactly one wins.
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

    /// The user who signed up with `email`, which is in lower case.
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

    /// The user `id`.
    pub(crate) async fn find_user(&self, id: &str) -> Result<Option<User>, StoreError> {
        let found = on_pool!(self, pool => sqlx::query_as::<_, User>(
            "SELECT id, email, name, created_at FROM users WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(pool))?;
        Ok(found)
    }
}
