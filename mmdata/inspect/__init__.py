"""Answers for a person who looks at a corpus: status, plan, audits and a sample's story."""
