//! What every backend does: the protocol's own suite, and a comparison with a model.
