"""Bringing a pretrained network to new images: its features, a head trained on them, likeness, and what to try."""
