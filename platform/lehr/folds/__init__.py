"""Cross-validation: what several folds measured, what was said of each row by a network that had not seen it, the page.

`results` is pure; `out_of_fold` reads and writes Parquet; `page` draws.
"""
