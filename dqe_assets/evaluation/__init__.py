"""How good a model is: zero-shot classification and retrieval, as DataComp measures them."""
