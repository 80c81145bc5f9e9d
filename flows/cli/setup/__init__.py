"""Commands that come before a run: a corpus, a first pipeline, its schema, certificates."""
