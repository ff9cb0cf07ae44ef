"""The object graph of a checkpoint: which objects hold which tensors, and how they are reached."""
