"""Write weight files for other libraries."""
