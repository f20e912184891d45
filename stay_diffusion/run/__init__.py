"""The run folder: what is built from a configuration, and the checkpoints and logs that it keeps."""
