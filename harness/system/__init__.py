"""What the machine reports: processes, memory, cards, git, files. One reader of each."""
