"""Jobs in a cluster's own monitoring: metrics through Ray, dashboards, alerts and annotations."""
