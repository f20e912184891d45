"""From batches to weights: one step, accumulation, average_gradients, logging, saving."""
