"""What cmstats costs and what it finds, measured beside its peers in one run."""
