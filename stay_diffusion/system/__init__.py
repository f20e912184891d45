"""The machine around a run: launchers, processes, devices, locks and remote storage."""
