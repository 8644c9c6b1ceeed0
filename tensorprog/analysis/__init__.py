"""What is done with meanings: comparing finite widths with a limit."""
