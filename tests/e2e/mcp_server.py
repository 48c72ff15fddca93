"""An MCP server without authentication of its own, stateless over streamable HTTP. It trusts the header `X-User-Id`.

    python mcp_server.py PORT
"""

import sys

from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_request

server = FastMCP("identity")


@server.tool
def whoami() -> str | None:
    """ID of the user who calls."""
    return get_http_request().headers.get("X-User-Id")


if __name__ == "__main__":
    server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), stateless_http=True, show_banner=False)
