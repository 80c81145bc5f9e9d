"""Commands that show what a store holds, and keep it whole."""
