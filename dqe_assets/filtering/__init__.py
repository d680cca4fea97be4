"""Filters as in DataComp, the subsets that they give, and the subsets' samples ready to train on."""
