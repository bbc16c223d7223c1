//! What the tests share: a hermetic environment, registries, probes.
