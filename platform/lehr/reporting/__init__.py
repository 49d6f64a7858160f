"""The toolkit of every report: one page that needs nothing but itself, and the charts in it."""
