"""What is computed: pure functions and frozen parameter dataclasses."""
