"""Which metric to trust: recordings damaged in known steps, and what every metric makes of them."""
