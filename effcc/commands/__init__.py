"""The commands of `effcc`, one a file; each is a thin shell around what the rooms below offer."""
