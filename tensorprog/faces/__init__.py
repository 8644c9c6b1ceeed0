"""What people type: the commands of the command line, and what they need to read and to say."""
