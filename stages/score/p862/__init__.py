"""PESQ, the perceptual evaluation of speech quality of ITU-T P.862, P.862.1 and P.862.2.

Both signals are brought to one level and filtered (`conditioning`). Speech is found in them
(`activity`), and the delay of each utterance (`alignment`, `delays`). A model of hearing turns
frames into loudness (`loudness`), and the differences are summed up to a score (`mos`).
"""
