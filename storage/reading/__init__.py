"""Read what a store holds: mappings, data frames, aligned segments."""
