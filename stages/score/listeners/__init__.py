"""What people hear: the kinds of listening tests, their stimuli, and the statistics of their answers."""
