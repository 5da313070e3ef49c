"""Importers of pooling."""
