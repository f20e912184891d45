"""From annotation files to batches: formats -> records -> transforms -> loader -> (images, Layout)."""
