"""What Keras and people call weights: families of files, labels, lists of names, twins."""
