"""Where jobs run: Ray on this machine, or a cluster."""
