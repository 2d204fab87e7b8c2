"""Records: how a person says, under a new name each day, where their devices can be reached.

`period` and `blinding` give the day's name, `seal` the item, `merge` brings several devices together,
`publisher` keeps the record up, `resolver` finds somebody else's.  The plaintext is `wire/record.py`'s.
"""
