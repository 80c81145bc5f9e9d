"""From YAML to a graph of nodes."""
