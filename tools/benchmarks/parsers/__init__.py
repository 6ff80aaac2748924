"""The command lines of the measurements, a file each; nothing heavy is imported for them."""
