"""The exchange formats that come with melmill: every `ExchangeFormat` that a module here defines is registered."""
