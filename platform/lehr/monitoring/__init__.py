"""What a cluster's own monitoring sees of a job: metrics through Ray, dashboards, rules and annotations."""
