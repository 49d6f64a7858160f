"""The tools as a server of the Model Context Protocol, over standard input and output.

Source: https://modelcontextprotocol.io
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lehr.agent.tools import Tools
from lehr.errors import LehrError
from lehr.extras import install

if TYPE_CHECKING:
    from mcp.server import MCPServer

ABOUT = (
    "lehr trains neural networks: learning-rate schedules, searches, the recipe for choosing hyperparameters, "
    "ensembles, transfer learning. Read runs and what their learning curves show before you start another; a result "
    "on few validation rows is a guess, and each says how sure it is."
)


def make_server(tools: Tools) -> MCPServer[Any]:
    """The server. Raises LehrError where the `mcp` package is missing."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp_types import ToolAnnotations
    except ImportError as error:
        raise LehrError(f"lehr mcp needs the mcp package, 2 or newer; install it: {install('mcp')}") from error

    def told(tool: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(tool)
        def call(*values: Any, **named: Any) -> Any:
            try:
                return tool(*values, **named)
            except LehrError as error:  # a sentence that says what to do instead
                raise ToolError(str(error)) from error

        return call

    server: MCPServer[Any] = MCPServer("lehr", instructions=ABOUT, log_level="WARNING")
    for tool in tools.reading():
        server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))(told(tool))
    for tool in tools.working():
        server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))(told(tool))
    return server
