"""Published releases: their manifests, order, pins, differences, and the deletion of old ones."""
