"""How many realistic bugs `effcc fuzz` finds: planted one at a time in a copy of the package, so many minutes each."""
