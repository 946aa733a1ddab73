"""What is done about people in pictures; docs/privacy.md says what is not."""
