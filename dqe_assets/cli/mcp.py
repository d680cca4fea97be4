"""``dqe mcp``."""

from __future__ import annotations

import sys

from dqe_assets.cli.terminal import clear_errors, errors, say


def mcp() -> None:
    """Serve an assistant by the Model Context Protocol: it can ask and search what was made, and change nothing.

    The assistant's program starts this command, and talks to it by its standard input and output.
    """
    with clear_errors():
        from dqe_assets.api.mcp_server import server
        from dqe_assets.api.opened import open_data
        from dqe_resources.cache import data_directory

        made = server(open_data(data_directory()))
        if sys.stdin.isatty():
            say(
                "waiting for an assistant's program on the standard input; docs/mcp.md says how one is set up",
                to=errors,
            )
        made.run("stdio")
