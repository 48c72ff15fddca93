"""A notes API of somebody who has never heard of the gate, and trusts one header."""

import os
from collections import defaultdict
from typing import Annotated

from fastapi import FastAPI, Header, Request
from pydantic import BaseModel

app = FastAPI(title="Notes")
notes: dict[str, list[str]] = defaultdict(list)


class Note(BaseModel):
    text: str


@app.get("/health")
def health():
    return {"status": "ok", "pid": os.getpid()}


@app.get("/api/{user_id}/notes")
def read_notes(user_id: str, x_user_id: Annotated[str, Header()]):
    return {"path": user_id, "caller": x_user_id, "notes": notes[x_user_id]}


@app.post("/api/{user_id}/notes", status_code=201)
def write_note(user_id: str, note: Note, x_user_id: Annotated[str, Header()]):
    notes[x_user_id].append(note.text)
    return {"path": user_id, "caller": x_user_id, "text": note.text}


@app.get("/api/auth/headers")
@app.get("/api/{user_id}/headers")
def echo_headers(request: Request):
    """Every header as it came, in its order; repeated ones repeated."""
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw]
