"""The pages that people read: the front page, the static site, and the explorer.

Nothing here is computed with a model. The front page shows what the executed notebooks left in
their outputs; the explorer is made of what is stored.
"""
