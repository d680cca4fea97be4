"""What ``import dqe_assets as dqe`` gives to notebooks and programs, and to assistants by MCP: the same functions."""
