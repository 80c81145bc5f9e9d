"""Networks that metrics compute with, each read from the weights in the package that published it."""
