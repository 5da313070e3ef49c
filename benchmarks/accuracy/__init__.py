"""What formats and methods cost in accuracy, on trained models: effcc beside its peers, at equal bytes.

subjects  trained models, their data, and how far a changed model is from the original
digits    a network that is trained here, and the ways down to its floor
formats   how a model is stored: effcc's schemes, methods and budgets, and the peers' formats
"""
