"""A gRPC service on grpcio, without generated code: each message is a string.

    python grpc_notes.py ADDRESS                    a gRPC address: 127.0.0.1:0 or unix:/path
    python grpc_notes.py ADDRESS KEY CERTIFICATE    the same with TLS
"""

import pathlib
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "claimgate.e2e.Notes"


def identity_of(context: grpc.ServicerContext) -> str:
    """Identity and credential headers of a call, in any spelling of their names."""
    named = [f"{name}={value}" for name, value in context.invocation_metadata()
             if name.replace("_", "-").replace(".", "-") in ("x-user-id", "authorization")]
    return " ".join(named)


def write(text: str, context: grpc.ServicerContext) -> str:
    context.set_trailing_metadata((("x-written", "in the end"),))
    if text == "fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "žádná poznámka")
    if text == "large":
        return "x" * (1024 * 1024)
    return f"{identity_of(context)}: {len(text)} {text[:100]}"


def read(text: str, context: grpc.ServicerContext):
    yield identity_of(context)
    for number in range(int(text)):
        yield str(number)
    if text == "0":
        # Open until the client or the gate ends it.
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(60)


def collect(texts, context: grpc.ServicerContext) -> str:
    return f"{identity_of(context)}: {sum(len(text) for text in texts)}"


def talk(texts, context: grpc.ServicerContext):
    for text in texts:
        yield f"{identity_of(context)}: {text}"


def main(address: str, *pair: str):
    text = {"request_deserializer": bytes.decode, "response_serializer": str.encode}
    methods = {
        "Write": grpc.unary_unary_rpc_method_handler(write, **text),
        "Read": grpc.unary_stream_rpc_method_handler(read, **text),
        "Collect": grpc.stream_unary_rpc_method_handler(collect, **text),
        "Talk": grpc.stream_stream_rpc_method_handler(talk, **text),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    if pair:
        pair = tuple(pathlib.Path(file).read_bytes() for file in pair)
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(address)
    server.start()
    print(f"listening on port {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
