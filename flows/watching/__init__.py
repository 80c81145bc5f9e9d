"""Everything that watches a run."""
