"""From batches to weights: one step, accumulation, averaging, logging, saving."""
