"""Files and bytes that do not change: by real writers, and by hand."""
