"""The media stage: fetches what the rows of a part point at, and stores it in one tar and one table a slice."""
