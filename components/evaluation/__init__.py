"""What the evaluator is made of: a model that is called, further photos, and what is measured and compared.

Imports `components.reporting`, `components.data` and what stands below them.
"""
