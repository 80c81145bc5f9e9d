"""What recordings and texts of a corpus are like, and which of them look wrong."""
