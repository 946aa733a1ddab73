"""What a release looks like: plots, the HTML report, Croissant metadata."""
