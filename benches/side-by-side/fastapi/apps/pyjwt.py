"""With its own check of an HS256 token, in a dependency as the tutorial of FastAPI shows it."""

import os
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tasks import Task, tasks_of

SECRET = os.environ["SECRET"]
LEEWAY_SECONDS = 30

app = FastAPI()
bearer = HTTPBearer(auto_error=False)


# `async`, because it never waits: a dependency with `def` would take a thread for each request.
async def owner(user_id: str, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Returns the subject of the token if it owns the path."""
    unauthorized = HTTPException(status.HTTP_401_UNAUTHORIZED, "Invalid token", {"WWW-Authenticate": "Bearer"})
    if credentials is None:
        raise unauthorized
    try:
        claims = jwt.decode(
            credentials.credentials, SECRET, algorithms=["HS256"], leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub"], "verify_aud": False},
        )
    except jwt.InvalidTokenError as error:
        raise unauthorized from error
    if claims["sub"] != user_id:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Token is for another user")
    return claims["sub"]


@app.get("/api/{user_id}/tasks")
async def list_tasks(caller: Annotated[str, Depends(owner)]) -> list[Task]:
    return tasks_of(caller)
