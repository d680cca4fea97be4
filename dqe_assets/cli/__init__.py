"""The ``dqe`` command."""
