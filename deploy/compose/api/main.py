"""Tasks of each user, in PostgreSQL. No code for tokens: the gate verifies them, and writes `X-User-Id`."""

import os
from typing import Annotated

import psycopg
from fastapi import FastAPI, Header
from psycopg.rows import dict_row
from pydantic import BaseModel


def connect() -> psycopg.Connection:
    return psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row)


with connect() as database:
    database.execute(
        "CREATE TABLE IF NOT EXISTS tasks (id bigserial PRIMARY KEY, user_id text NOT NULL, title text NOT NULL)"
    )

app = FastAPI()
User = Annotated[str, Header(alias="X-User-Id")]


class Task(BaseModel):
    title: str


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/api/{user_id}/tasks")
def read_tasks(user: User):
    with connect() as database:
        return database.execute("SELECT id, title FROM tasks WHERE user_id = %s ORDER BY id", [user]).fetchall()


@app.post("/api/{user_id}/tasks", status_code=201)
def create_task(task: Task, user: User):
    with connect() as database:
        query = "INSERT INTO tasks (user_id, title) VALUES (%s, %s) RETURNING id, title"
        return database.execute(query, [user, task.title]).fetchone()
