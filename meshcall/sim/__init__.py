"""The simulator: the very same cores that the daemon drives, in a world of virtual time.

`scenario` is what a user writes, `run` drives it, `report` shows it; `world` puts together what a
world is made of (`schedule`, `geography`, `network`, `nat`, `host`, `churn`, `people`), `checks`
judges it from outside.  Nothing here is used by a node.
"""
