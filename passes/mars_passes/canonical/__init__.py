"""The steps of ``canonicalize``, one module each."""
