"""The code location."""

from dqe_assets.code_location import definitions
from dqe_assets.orchestration.settings import load_settings

defs = definitions(load_settings())
