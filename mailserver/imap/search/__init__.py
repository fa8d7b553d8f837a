"""SEARCH keys and results, and the evaluation of a search.

Used by the commands that search. Begin with `keys.py` (the parser), `evaluation.py` and `results.py` (RETURN's options).
"""
