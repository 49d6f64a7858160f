"""Transfer learning: features of a frozen network, heads trained on them, and the choice of a strategy."""
