"""Salvage: a sound checkpoint of what can be saved of a damaged one, and an account of the rest."""
