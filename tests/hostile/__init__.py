"""One test per malformation: its exact error, and where it says the damage is."""
