"""One folder a feature; each can be deleted with its lines in `presets`."""
