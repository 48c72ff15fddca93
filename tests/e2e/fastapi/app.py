"""A notes API without authentication of its own. It trusts the header `X-User-Id`."""

import asyncio
import os
from collections import defaultdict
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

MEBIBYTE = 1024 * 1024

app = FastAPI(title="Notes")
notes: dict[str, list[str]] = defaultdict(list)
listeners: dict[str, list[asyncio.Queue]] = defaultdict(list)


class Note(BaseModel):
    text: str


@app.get("/health")
def health():
    return {"status": "ok", "pid": os.getpid()}


@app.get("/api/{user_id}/notes")
def read_notes(user_id: str, x_user_id: Annotated[str, Header()]):
    return {"path": user_id, "caller": x_user_id, "notes": notes[x_user_id]}


@app.post("/api/{user_id}/notes", status_code=201)
async def write_note(user_id: str, note: Note, x_user_id: Annotated[str, Header()]):
    notes[x_user_id].append(note.text)
    for listener in listeners[x_user_id]:
        listener.put_nowait(note.text)
    return {"path": user_id, "caller": x_user_id, "text": note.text}


@app.delete("/api/{user_id}/notes", status_code=204)
def forget_notes(x_user_id: Annotated[str, Header()]):
    notes.pop(x_user_id, None)


@app.api_route("/api/{user_id}/page", methods=["GET", "HEAD"])
def page(x_user_id: Annotated[str, Header()], if_none_match: Annotated[str | None, Header()] = None):
    tag = {"ETag": f'"{x_user_id}"'}
    if if_none_match == tag["ETag"]:
        return Response(status_code=304, headers=tag)
    return Response(f"the page of {x_user_id}", headers=tag, media_type="text/plain")


@app.get("/api/{user_id}/events")
async def events(x_user_id: Annotated[str, Header()]):
    """Streams each new note of the caller as an event, until a note `end`."""
    listener = asyncio.Queue()
    listeners[x_user_id].append(listener)

    async def stream():
        try:
            yield f"event: user\ndata: {x_user_id}\n\n"
            while (text := await listener.get()) != "end":
                yield f"data: {text}\n\n"
        finally:
            listeners[x_user_id].remove(listener)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.get("/api/{user_id}/listeners")
async def count_listeners(user_id: str):
    return len(listeners[user_id])


@app.get("/api/{user_id}/source")
async def source(mebibytes: int):
    async def zeros():
        for _ in range(mebibytes):
            yield bytes(MEBIBYTE)

    return StreamingResponse(zeros(), headers={"Content-Length": str(mebibytes * MEBIBYTE)})


@app.put("/api/{user_id}/sink")
async def sink(request: Request):
    size = 0
    async for part in request.stream():
        size += len(part)
    return {"mebibytes": size / MEBIBYTE}


@app.get("/api/auth/headers")
@app.get("/api/{user_id}/headers")
def echo_headers(request: Request):
    """All request headers in order, with duplicates."""
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw]
