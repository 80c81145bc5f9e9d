"""Find out how a mel was made, from its values alone or with the recording it was made of."""
