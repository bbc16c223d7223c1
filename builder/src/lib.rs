//! Containerfile to image: parse, plan, cache, steps.
