"""Parts of the benchmark `data_worth`: what is held out, what is trained on, and what the difference is worth."""
