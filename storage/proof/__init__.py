"""The proof that shards are done: a record, packs of copies of records, and what a plan asks of them."""
