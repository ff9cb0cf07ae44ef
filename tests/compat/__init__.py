"""TensorFlow as the oracle, both ways."""
