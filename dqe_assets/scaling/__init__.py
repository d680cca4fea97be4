"""Which data for which compute: scaling laws of pools of data, and the filter that they recommend."""
