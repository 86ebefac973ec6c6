"""Read and write weight files without executing anything in them."""
