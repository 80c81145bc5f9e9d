"""The stage that trains vocoders."""
