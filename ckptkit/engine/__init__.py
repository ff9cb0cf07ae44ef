"""Plans and what carries them out: bytes, blocks, devices. Knows no format."""
