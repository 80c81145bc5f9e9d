"""A campaign of faults: disturb the pipeline in many ways, and compare with a quiet run."""
