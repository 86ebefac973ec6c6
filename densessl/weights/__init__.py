"""Weight files: reading, recognising, loading and exporting."""
