"""Files: how bytes are read and written, and how a result becomes visible."""
