"""What the machine tells: processes, memory, cards, git, files. One reader of each."""
