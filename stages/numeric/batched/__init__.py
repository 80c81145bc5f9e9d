"""The batch engine: the iterative methods on padded batches of utterances, as torch tensors on one device.

The mathematics is that of `melmill.stages.numeric.compiled`, which defines the results. Magnitudes and spectra are
``(B, T, F)``: utterance, frame, bin. What lies past an utterance's own frames is 0 and stays 0 in every step, so that
it needs no mask but one, on the frames that are transformed. Importing its modules imports torch and numba.
"""
