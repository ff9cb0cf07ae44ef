"""HDF5 content: its metadata read natively, and changed in memory without any data."""
