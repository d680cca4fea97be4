"""``python -m dqe_assets.cli``: the same as ``dqe``."""

from dqe_assets.cli.app import app

app()
