"""One script a house model: `python -m backend.train.<model>`. Never imported by the app."""
