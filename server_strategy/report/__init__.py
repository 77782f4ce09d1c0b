"""What a run leaves: report.json, tables for the terminal, charts and a page.

report        report.json
run_log       a run's log: what it prints, its phases' times, what crossed, its files
tables        tables for the terminal; the words that every view shares
comparisons   how far arms differ over users, and whether that can be told
verdict       what the run shows, in sentences
svg           one figure as inline SVG, in our colours
charts        the page's charts
page          a finished run as one HTML file
page_users    the page's part on users
html          the pieces that a page is made of
"""
