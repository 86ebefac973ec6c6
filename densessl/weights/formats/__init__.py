"""Files for other libraries."""
