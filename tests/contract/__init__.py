"""One suite that every format passes."""
