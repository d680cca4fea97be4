"""The index: the Qdrant collection and its search."""
