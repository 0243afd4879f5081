"""What was tried beside what ships: each row of the tables in docs/pixel.md has its command here."""
