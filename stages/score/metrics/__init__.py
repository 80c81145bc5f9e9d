"""The metrics that come with melmill: every `Metric` that a module here defines is registered."""
