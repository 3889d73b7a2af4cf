"""Training of the house models of series: the mix of windows, held-out cases, baselines and tables."""
