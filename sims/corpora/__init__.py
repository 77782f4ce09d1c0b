"""What users' data hold, counted.

table5   PerFit's table 5: users, rows and lengths of both cohorts
"""
