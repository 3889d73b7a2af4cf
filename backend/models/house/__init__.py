"""Our own modules: small, typed, and the same class for training and for inference."""
