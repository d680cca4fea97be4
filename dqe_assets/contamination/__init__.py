"""Whether samples are also in the sets that models are evaluated on."""
