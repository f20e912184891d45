"""Where layouts come from: splits, files, statistics of the data, and places in images."""
