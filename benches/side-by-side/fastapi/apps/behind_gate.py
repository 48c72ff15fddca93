"""Behind claimgate: the caller is in `X-User-Id`."""

from typing import Annotated

from fastapi import FastAPI, Header

from tasks import Task, tasks_of

app = FastAPI()
Caller = Annotated[str, Header(alias="X-User-Id")]


@app.get("/api/{user_id}/tasks")
async def list_tasks(caller: Caller) -> list[Task]:
    return tasks_of(caller)
