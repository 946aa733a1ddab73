"""Parts of the benchmark `training`: the release that both sides read, our side, and the peers."""
