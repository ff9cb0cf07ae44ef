"""Archives (zip) of Keras: read within bounds, laid out anew, inflated where that has to be."""
