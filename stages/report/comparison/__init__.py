"""Comparisons of scores, utterance by utterance: of nodes, of runs, and by the rules of a gate."""
