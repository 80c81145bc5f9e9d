"""The status page: stores as a small website for reading, on this machine unless asked otherwise."""
