"""Apply the settings of a run to a stock config."""
