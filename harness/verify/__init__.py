"""Checks somebody else's bundle: from its rows and our own gold, never from what it says of itself.

archive.py    the zip as bytes          strict.py     JSON without two readings
rows.py       what a run could write    claims.py     claimed scores and latencies
gold.py       answers in options        times.py      times that cannot be
rerun.py      asking a few again        challenge.py  worlds that nobody could train on
findings.py   rules, what breaks them   report.py     findings, notices and badge, told
checks.py     one rule after the other; `harness.verify.checks.verify` is the way in

Nothing of a bundle is executed, unpickled, or written under a name that it chose.
"""
