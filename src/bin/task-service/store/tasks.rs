//! Tasks. Every statement filters by user, so none can access the task of another user.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Store, StoreError, on_pool};
use crate::clock::Moment;

/// Task of a user.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct Task {
    /// Unique among all tasks, increasing.
    #[schema(minimum = 1)]
    id: i64,
    /// Owner of the task.
    user_id: String,
    /// Title of the task.
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// Details of the task.
    #[schema(max_length = 1000, required)]
    description: Option<String>,
    /// Completion state.
    completed: bool,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// Time of the last change.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Moment,
}

/// Title and description of a task, already validated.
#[derive(Debug)]
pub(crate) struct TaskText {
    pub(crate) title: String,
    pub(crate) description: Option<String>,
}

impl Store {
    /// Adds a task of `user`.
    pub(crate) async fn create_task(
        &self,
        user: &str,
        text: &TaskText,
        now: Moment,
    ) -> Result<Task, StoreError> {
        let mut created = on_pool!(self, pool => sqlx::query_as::<_, Task>(
            "INSERT INTO tasks (user_id, title, description, completed, created_at, updated_at)
             VALUES ($1, $2, $3, FALSE, $4, $4)
             RETURNING id, user_id, title, description, completed, created_at, updated_at",
        )
        .bind(user)
        .bind(&text.title)
        .bind(&text.description)
        .bind(now)
        .fetch_all(pool))?;
        created
            .pop()
            .ok_or(StoreError::Failed(sqlx::Error::RowNotFound))
    }

    /// Lists all tasks of `user`, newest first.
    pub(crate) async fn list_tasks(&self, user: &str) -> Result<Vec<Task>, StoreError> {
        let tasks = on_pool!(self, pool => sqlx::query_as::<_, Task>(
            "SELECT id, user_id, title, description, completed, created_at, updated_at
             FROM tasks WHERE user_id = $1 ORDER BY id DESC",
        )
        .bind(user)
        .fetch_all(pool))?;
        Ok(tasks)
    }

    /// Finds the task `id` of `user`.
    pub(crate) async fn find_task(&self, user: &str, id: i64) -> Result<Option<Task>, StoreError> {
        let task = on_pool!(self, pool => sqlx::query_as::<_, Task>(
            "SELECT id, user_id, title, description, completed, created_at, updated_at
             FROM tasks WHERE user_id = $1 AND id = $2",
        )
        .bind(user)
        .bind(id)
        .fetch_optional(pool))?;
        Ok(task)
    }

    /// Replaces the task `id` of `user`; `completed` is unchanged if `None`.
    pub(crate) async fn replace_task(
        &self,
        user: &str,
        id: i64,
        text: &TaskText,
        completed: Option<bool>,
        now: Moment,
    ) -> Result<Option<Task>, StoreError> {
        let mut replaced = on_pool!(self, pool => sqlx::query_as::<_, Task>(
            "UPDATE tasks
             SET title = $3, description = $4, completed = COALESCE($5, completed), updated_at = $6
             WHERE user_id = $1 AND id = $2
             RETURNING id, user_id, title, description, completed, created_at, updated_at",
        )
        .bind(user)
        .bind(id)
        .bind(&text.title)
        .bind(&text.description)
        .bind(completed)
        .bind(now)
        .fetch_all(pool))?;
        Ok(replaced.pop())
    }

    /// Marks the task `id` of `user` as done or not done.
    pub(crate) async fn complete_task(
        &self,
        user: &str,
        id: i64,
        completed: bool,
        now: Moment,
    ) -> Result<Option<Task>, StoreError> {
        let mut changed = on_pool!(self, pool => sqlx::query_as::<_, Task>(
            "UPDATE tasks SET completed = $3, updated_at = $4
             WHERE user_id = $1 AND id = $2
             RETURNING id, user_id, title, description, completed, created_at, updated_at",
        )
        .bind(user)
        .bind(id)
        .bind(completed)
        .bind(now)
        .fetch_all(pool))?;
        Ok(changed.pop())
    }

    /// Deletes the task `id` of `user`; returns whether it existed.
    pub(crate) async fn delete_task(&self, user: &str, id: i64) -> Result<bool, StoreError> {
        let deleted = on_pool!(self, pool => sqlx::query_scalar::<_, i64>(
            "DELETE FROM tasks WHERE user_id = $1 AND id = $2 RETURNING id",
        )
        .bind(user)
        .bind(id)
        .fetch_all(pool))?;
        Ok(!deleted.is_empty())
    }
}
