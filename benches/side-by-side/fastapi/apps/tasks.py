"""The data of all applications: five tasks for each user."""

from pydantic import BaseModel


class Task(BaseModel):
    id: int
    title: str
    done: bool


TITLES = ("water the plants", "call the plumber", "read chapter four", "renew the passport", "buy bread")


def tasks_of(user_id: str) -> list[Task]:
    return [Task(id=number, title=f"{title} ({user_id})", done=False) for number, title in enumerate(TITLES, 1)]
