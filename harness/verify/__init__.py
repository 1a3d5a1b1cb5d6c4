"""Checks somebody else's bundle: from its rows and our own gold, never from what it says of itself.

archive.py  the zip as bytes          strict.py   JSON without two readings
bundle.py   the files as values       rows.py     what a run could have written
gold.py     answers in options        rerun.py    asking a few questions again
checks.py   one rule after the other; `harness.verify.checks.verify` is the way in

Nothing of a bundle is executed, unpickled, or written under a name that it chose.
"""
