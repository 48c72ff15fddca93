//! Operations under `/api/{user_id}/tasks`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::{BodyRefusals, OwnerRefusals, TaskUnknown};
use super::request::{JsonBody, Owner, TaskId};
use super::{Detail, Refusal, Service};
use crate::clock::Moment;
use crate::store::{Task, TaskText};

const TITLE_CHARACTERS: usize = 200;
const DESCRIPTION_CHARACTERS: usize = 1000;

/// New task.
#[derive(Deserialize, ToSchema)]
struct CreateTask {
    /// 1 to 200 characters after trimming whitespace.
    #[schema(min_length = 1, max_length = 200, example = "Buy milk")]
    title: String,
    /// At most 1000 characters.
    #[schema(max_length = 1000)]
    description: Option<String>,
}

/// Replacement of a task.
#[derive(Deserialize, ToSchema)]
struct ReplaceTask {
    /// 1 to 200 characters after trimming whitespace.
    #[schema(min_length = 1, max_length = 200, example = "Buy oat milk")]
    title: String,
    /// At most 1000 characters; removed if absent.
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// Completion state; unchanged if absent.
    completed: Option<bool>,
}

/// Completion of a task.
#[derive(Deserialize, ToSchema)]
struct CompleteTask {
    completed: bool,
}

/// Routes of the task operations, with their `OpenAPI` description.
pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_tasks, create_task))
        .routes(routes!(find_task, replace_task, delete_task))
        .routes(routes!(complete_task))
}

/// List the tasks of the user, newest first.
#[utoipa::path(
    get,
    path = "/api/{user_id}/tasks",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    responses(
        (status = 200, description = "Tasks of the user", body = [Task]),
        (status = 400, description = "The path is not valid UTF-8", body = Detail),
        OwnerRefusals,
    ),
)]
async fn list_tasks(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
) -> Result<Json<Vec<Task>>, Refusal> {
    Ok(Json(service.store.list_tasks(&user).await?))
}

/// Create a task.
#[utoipa::path(
    post,
    path = "/api/{user_id}/tasks",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    request_body = CreateTask,
    responses(
        (status = 201, description = "The created task", body = Task),
        BodyRefusals,
        OwnerRefusals,
    ),
)]
async fn create_task(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
    JsonBody(body): JsonBody<CreateTask>,
) -> Result<(StatusCode, Json<Task>), Refusal> {
    let text = check_text(&body.title, body.description)?;
    let task = service
        .store
        .create_task(&user, &text, Moment::now())
        .await?;
    Ok((StatusCode::CREATED, Json(task)))
}

/// Get a task.
#[utoipa::path(
    get,
    path = "/api/{user_id}/tasks/{id}",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("id" = i64, Path, description = "Task ID", minimum = 1),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 400, description = "The task ID is not a positive integer", body = Detail),
        TaskUnknown,
        OwnerRefusals,
    ),
)]
async fn find_task(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
    TaskId(id): TaskId,
) -> Result<Json<Task>, Refusal> {
    let task = service.store.find_task(&user, id).await?;
    task.map(Json).ok_or(Refusal::TaskUnknown)
}

/// Replace a task.
#[utoipa::path(
    put,
    path = "/api/{user_id}/tasks/{id}",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("id" = i64, Path, description = "Task ID", minimum = 1),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    request_body = ReplaceTask,
    responses(
        (status = 200, description = "The updated task", body = Task),
        BodyRefusals,
        TaskUnknown,
        OwnerRefusals,
    ),
)]
async fn replace_task(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
    TaskId(id): TaskId,
    JsonBody(body): JsonBody<ReplaceTask>,
) -> Result<Json<Task>, Refusal> {
    let text = check_text(&body.title, body.description)?;
    let task = service
        .store
        .replace_task(&user, id, &text, body.completed, Moment::now())
        .await?;
    task.map(Json).ok_or(Refusal::TaskUnknown)
}

/// Delete a task.
#[utoipa::path(
    delete,
    path = "/api/{user_id}/tasks/{id}",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("id" = i64, Path, description = "Task ID", minimum = 1),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    responses(
        (status = 204, description = "The task was deleted"),
        (status = 400, description = "The task ID is not a positive integer", body = Detail),
        TaskUnknown,
        OwnerRefusals,
    ),
)]
async fn delete_task(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
    TaskId(id): TaskId,
) -> Result<StatusCode, Refusal> {
    if !service.store.delete_task(&user, id).await? {
        return Err(Refusal::TaskUnknown);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Mark a task as done or not done.
#[utoipa::path(
    patch,
    path = "/api/{user_id}/tasks/{id}/complete",
    tag = "tasks",
    params(
        ("user_id" = String, Path, description = "User, equal to X-User-Id"),
        ("id" = i64, Path, description = "Task ID", minimum = 1),
        ("X-User-Id" = String, Header, description = "User, set by the gate"),
    ),
    request_body = CompleteTask,
    responses(
        (status = 200, description = "The updated task", body = Task),
        BodyRefusals,
        TaskUnknown,
        OwnerRefusals,
    ),
)]
async fn complete_task(
    State(service): State<Arc<Service>>,
    Owner(user): Owner,
    TaskId(id): TaskId,
    JsonBody(body): JsonBody<CompleteTask>,
) -> Result<Json<Task>, Refusal> {
    let task = service
        .store
        .complete_task(&user, id, body.completed, Moment::now())
        .await?;
    task.map(Json).ok_or(Refusal::TaskUnknown)
}

/// Checks the length of title and description. Rejects NUL, which `PostgreSQL` cannot store in text.
fn check_text(title: &str, description: Option<String>) -> Result<TaskText, Refusal> {
    let title = title.trim();
    let length = title.chars().count();
    if length == 0 || length > TITLE_CHARACTERS || title.contains('\0') {
        return Err(Refusal::TitleInvalid);
    }
    if let Some(text) = &description
        && (text.chars().count() > DESCRIPTION_CHARACTERS || text.contains('\0'))
    {
        return Err(Refusal::DescriptionInvalid);
    }
    Ok(TaskText {
        title: title.to_owned(),
        description,
    })
}

#[cfg(test)]
mod tests {
    use super::check_text;

    #[test]
    fn counts_the_characters_of_a_trimmed_title() {
        let cases = [
            ("", false),
            (" \t\n", false),
            (" a ", true),
            (&"ä".repeat(200), true),
            (&"ä".repeat(201), false),
            (&format!("  {}  ", "a".repeat(200)), true),
            ("a\0b", false),
        ];
        for (title, valid) in cases {
            assert_eq!(check_text(title, None).is_ok(), valid, "{title:?}");
        }
    }

    #[test]
    fn limits_a_description_to_1000_characters() {
        let cases = [
            (String::new(), true),
            ("ä".repeat(1000), true),
            ("ä".repeat(1001), false),
            ("\0".to_owned(), false),
        ];
        for (description, valid) in cases {
            let checked = check_text("title", Some(description.clone()));
            assert_eq!(checked.is_ok(), valid, "{description:?}");
        }
    }
}
