"""Without any check: the lower limit of what the application costs."""

from fastapi import FastAPI

from tasks import Task, tasks_of

app = FastAPI()


@app.get("/api/{user_id}/tasks")
async def list_tasks(user_id: str) -> list[Task]:
    return tasks_of(user_id)
