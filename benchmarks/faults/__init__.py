"""A campaign of faults: the pipeline is disturbed in every way at hand, and must come out as if it had not been."""
