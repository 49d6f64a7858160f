"""What every report is made of: a self-contained page, the charts in it, and the smoothing of noisy curves."""
