"""Training sets: folders in the layouts that the code of other projects reads."""
