"""Runs at set times: what calls them, what keeps them apart, and whom they tell."""
