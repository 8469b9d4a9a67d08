"""The stages of the pipeline: what holds after each, and the decisions attached to a model."""
