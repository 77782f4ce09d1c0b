"""What finished cells say: rows, intervals, tables, figures.

rows        reports put together as rows of the paper's tables, and the differences between methods
agreement   how far the scores of two runs differ
tables      the same tables as Markdown and as one page
figures     differences with their intervals, as inline SVG
tradeoff    a metric against the share of parameters that is trained, figure 1 (b)
results     the result files of a comparison
"""
