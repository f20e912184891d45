"""Feature extractors that metrics compare images by."""
