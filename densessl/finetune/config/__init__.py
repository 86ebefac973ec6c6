"""What one command line changes in a stock config."""
