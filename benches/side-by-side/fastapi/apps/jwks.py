"""With its own check of an EdDSA token against a key set (JWKS), as Better Auth issues them."""

import os
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tasks import Task, tasks_of

LEEWAY_SECONDS = 30

app = FastAPI()
bearer = HTTPBearer(auto_error=False)
keys = jwt.PyJWKClient(os.environ["JWKS_URL"])


# `def`, because PyJWKClient blocks while it fetches the key set: FastAPI calls this function on a thread.
def owner(user_id: str, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Returns the subject of the token if it owns the path."""
    unauthorized = HTTPException(status.HTTP_401_UNAUTHORIZED, "Invalid token", {"WWW-Authenticate": "Bearer"})
    if credentials is None:
        raise unauthorized
    try:
        key = keys.get_signing_key_from_jwt(credentials.credentials)
        claims = jwt.decode(
            credentials.credentials, key, algorithms=["EdDSA"], leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub"], "verify_aud": False},
        )
    except jwt.PyJWKClientConnectionError as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "Keys are unavailable") from error
    except jwt.PyJWTError as error:
        raise unauthorized from error
    if claims["sub"] != user_id:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Token is for another user")
    return claims["sub"]


@app.get("/api/{user_id}/tasks")
async def list_tasks(caller: Annotated[str, Depends(owner)]) -> list[Task]:
    return tasks_of(caller)
