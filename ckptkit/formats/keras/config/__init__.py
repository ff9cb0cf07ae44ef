"""The text beside weights: what it says of them, and where they agree no longer."""
