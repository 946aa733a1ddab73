"""The three training stages and what each of them trains."""
