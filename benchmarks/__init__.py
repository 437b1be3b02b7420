"""Time, memory and quality of cmstats and of its peers, measured in one run."""
