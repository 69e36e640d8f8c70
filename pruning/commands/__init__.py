"""What the commands of the command line do; `pruning.cli` is their parser."""
