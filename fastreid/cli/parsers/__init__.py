"""The command lines of the programs, a file each; nothing heavy is imported for them."""
